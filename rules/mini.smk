"""Build the miniature world's models: real architectures, small, trained on the project's own corpus.

The demo uses the models that are committed in resources/mini/models; these rules make them anew.

inputs:  the grammar, the synthesiser, the captioner's prompts
outputs: <mini_models>/{llama,codec,musicgen,clap,roberta,gpt2,judge}, <mini_models>/SHA256SUMS
steps:   train_mini_llama, train_mini_codec, train_mini_musicgen, train_mini_clap, train_mini_roberta,
         train_mini_gpt2, train_mini_judge, list_mini_models
"""


rule train_mini_llama:
    """Train the small language model of captions and instructions."""
    input:
        prompts="resources/prompts/caption.yaml",
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
        mem_mb=grows(8000),
        runtime=grows(480),
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
        mem_mb=grows(16000),
        runtime=grows(480),
    params:
        spec=section("mini.musicgen"),
        world=section("mini", "clip_s", "sampling_rate_hz"),
        seed=setting("seed"),
        code=fingerprint("train_mini_musicgen"),
    script:
        "../workflow/scripts/train_mini_musicgen.py"


rule train_mini_clap:
    """Train the small CLAP, on clips half of which went through the codec."""
    input:
        codec="<mini_models>/codec",
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
        mem_mb=grows(8000),
        runtime=grows(240),
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


rule train_mini_judge:
    """Train the small network that hears which tags a clip plays."""
    input:
        codec="<mini_models>/codec",
    output:
        model=directory("<mini_models>/judge"),
    log:
        "<logs>/train_mini_judge.log",
    benchmark:
        "<benchmarks>/train_mini_judge.tsv"
    conda:
        "../envs/audio.yaml"
    threads: 1
    resources:
        mem_mb=grows(8000),
        runtime=grows(240),
    params:
        spec=section("mini.judge"),
        world=section("mini", "clip_s", "sampling_rate_hz"),
        seed=setting("seed"),
        code=fingerprint("train_mini_judge"),
    script:
        "../workflow/scripts/train_mini_judge.py"


rule list_mini_models:
    """List the checksums of the models, by which a committed zoo is checked."""
    input:
        models=expand("<mini_models>/{model}", model=MINI_MODELS),
    output:
        checksums="<mini_models>/SHA256SUMS",
    log:
        "<logs>/list_mini_models.log",
    benchmark:
        "<benchmarks>/list_mini_models.tsv"
    conda:
        "../envs/core.yaml"
    threads: 1
    resources:
        mem_mb=grows(1000),
        runtime=grows(10),
    params:
        code=fingerprint("list_mini_models"),
    script:
        "../workflow/scripts/list_mini_models.py"
