"""Build the miniature world's models: real architectures, small, trained on the project's own corpus.

inputs:  none but the grammar and the synthesiser
outputs: <mini_models>/{llama,codec,musicgen,clap,roberta,gpt2}
steps:   train_mini_llama, train_mini_codec, train_mini_musicgen, train_mini_clap, train_mini_roberta,
         train_mini_gpt2
"""


rule train_mini_llama:
    """Train the small language model of captions and instructions."""
    output:
        model=directory("<mini_models>/llama"),
    log:
        "<logs>/train_mini_llama.log",
    benchmark:
        "<benchmarks>/train_mini_llama.tsv"
    conda:
        "../envs/text.yaml"
    threads: 1
    resources:
        mem_mb=grows(4000),
        runtime=grows(60),
    params:
        spec=section("mini.llama"),
        seed=setting("seed"),
        code=fingerprint("train_mini_llama"),
    script:
        "../workflow/scripts/train_mini_llama.py"


rule train_mini_codec:
    """Train the small EnCodec."""
    output:
        model=directory("<mini_models>/codec"),
    log:
        "<logs>/train_mini_codec.log",
    benchmark:
        "<benchmarks>/train_mini_codec.tsv"
    conda:
        "../envs/audio.yaml"
    threads: 1
    resources:
        mem_mb=grows(4000),
        runtime=grows(60),
    params:
        spec=section("mini.codec"),
        world=section("mini", "clip_s", "sampling_rate_hz"),
        seed=setting("seed"),
        code=fingerprint("train_mini_codec"),
    script:
        "../workflow/scripts/train_mini_codec.py"


rule train_mini_musicgen:
    """Train the small MusicGen over the codec's tokens."""
    input:
        codec="<mini_models>/codec",
    output:
        model=directory("<mini_models>/musicgen"),
    log:
        "<logs>/train_mini_musicgen.log",
    benchmark:
        "<benchmarks>/train_mini_musicgen.tsv"
    conda:
        "../envs/audio.yaml"
    threads: 1
    resources:
        mem_mb=grows(4000),
        runtime=grows(60),
    params:
        spec=section("mini.musicgen"),
        world=section("mini", "clip_s", "sampling_rate_hz"),
        seed=setting("seed"),
        code=fingerprint("train_mini_musicgen"),
    script:
        "../workflow/scripts/train_mini_musicgen.py"


rule train_mini_clap:
    """Train the small CLAP."""
    output:
        model=directory("<mini_models>/clap"),
    log:
        "<logs>/train_mini_clap.log",
    benchmark:
        "<benchmarks>/train_mini_clap.tsv"
    conda:
        "../envs/audio.yaml"
    threads: 1
    resources:
        mem_mb=grows(4000),
        runtime=grows(60),
    params:
        spec=section("mini.clap"),
        world=section("mini", "clip_s", "sampling_rate_hz"),
        seed=setting("seed"),
        code=fingerprint("train_mini_clap"),
    script:
        "../workflow/scripts/train_mini_clap.py"


rule train_mini_roberta:
    """Train the small RoBERTa that BERTScore reads."""
    output:
        model=directory("<mini_models>/roberta"),
    log:
        "<logs>/train_mini_roberta.log",
    benchmark:
        "<benchmarks>/train_mini_roberta.tsv"
    conda:
        "../envs/text.yaml"
    threads: 1
    resources:
        mem_mb=grows(4000),
        runtime=grows(60),
    params:
        spec=section("mini.roberta"),
        seed=setting("seed"),
        code=fingerprint("train_mini_roberta"),
    script:
        "../workflow/scripts/train_mini_roberta.py"


rule train_mini_gpt2:
    """Train the small GPT-2 that MAUVE reads."""
    output:
        model=directory("<mini_models>/gpt2"),
    log:
        "<logs>/train_mini_gpt2.log",
    benchmark:
        "<benchmarks>/train_mini_gpt2.tsv"
    conda:
        "../envs/text.yaml"
    threads: 1
    resources:
        mem_mb=grows(4000),
        runtime=grows(60),
    params:
        spec=section("mini.gpt2"),
        seed=setting("seed"),
        code=fingerprint("train_mini_gpt2"),
    script:
        "../workflow/scripts/train_mini_gpt2.py"
