"""Measure captions and clips: text metrics, CLAP, Frechet audio distance.

inputs:  captions, clips, held-out pairs, the genre corpus as reference
outputs: <results>/scores/{arm}/clap/{shard}.parquet, <results>/scores/{text,clap,fad}.json
steps:   score_clap, embed_reference, summarise_clap, score_fad, score_text
"""


rule score_clap:
    """Embed one shard of clips and captions and score their agreement."""
    input:
        audio="<results>/audio/{arm}/{shard}.parquet",
        captions="<results>/captions/{arm}/{shard}.parquet",
        model=local("scores.clap.model", "scores.clap.revision"),
    output:
        scores="<results>/scores/{arm}/clap/{shard}.parquet",
    log:
        "<logs>/score_clap/{arm}/{shard}.log",
    benchmark:
        "<benchmarks>/score_clap/{arm}/{shard}.tsv"
    conda:
        "../envs/audio.yaml"
    threads: 4
    resources:
        gpu=1,
        mem_mb=grows(16000),
        runtime=grows(60),
    params:
        clap=section("scores.clap"),
        code=fingerprint("score_clap"),
    script:
        "../workflow/scripts/score_clap.py"


rule embed_reference:
    """Embed the reference corpus, and its controls: noise, silence, low-passed."""
    input:
        clips=reference_clips(),
        model=local("scores.clap.model", "scores.clap.revision"),
    output:
        embeddings="<results>/scores/reference/clap.parquet",
        controls="<results>/scores/reference/controls.parquet",
        ledger="<results>/scores/reference/ledger.parquet",
    log:
        "<logs>/embed_reference.log",
    benchmark:
        "<benchmarks>/embed_reference.tsv"
    conda:
        "../envs/audio.yaml"
    threads: 4
    resources:
        gpu=1,
        mem_mb=grows(16000),
        runtime=grows(60),
    params:
        clap=section("scores.clap"),
        folder=reference_folder(),
        controls=section("scores.fad", "control_clips", "lowpass_hz"),
        seed=setting("seed"),
        code=fingerprint("embed_reference"),
    script:
        "../workflow/scripts/embed_reference.py"


rule summarise_clap:
    """CLAP score of every arm, its baselines, and which arms it tells apart."""
    input:
        unpack(clap_shards),
        controls="<results>/scores/reference/controls.parquet",
    output:
        scores="<results>/scores/clap.json",
    log:
        "<logs>/summarise_clap.log",
    benchmark:
        "<benchmarks>/summarise_clap.tsv"
    conda:
        "../envs/audio.yaml"
    threads: 1
    resources:
        mem_mb=grows(4000),
        runtime=grows(20),
    params:
        arms=scored_arms(),
        clap=section("scores.clap"),
        seed=setting("seed"),
        code=fingerprint("summarise_clap"),
    script:
        "../workflow/scripts/summarise_clap.py"


rule score_fad:
    """Frechet audio distance of every arm to the reference, at equal N."""
    input:
        unpack(clap_shards),
        reference="<results>/scores/reference/clap.parquet",
        controls="<results>/scores/reference/controls.parquet",
    output:
        scores="<results>/scores/fad.json",
    log:
        "<logs>/score_fad.log",
    benchmark:
        "<benchmarks>/score_fad.tsv"
    conda:
        "../envs/audio.yaml"
    threads: 4
    resources:
        mem_mb=grows(8000),
        runtime=grows(60),
    params:
        arms=scored_arms(),
        fad=section(
            "scores.fad", "bootstraps", "floor_splits", "infinity_sizes", "infinity_repeats"
        ),
        clap=section("scores.clap"),
        seed=setting("seed"),
        code=fingerprint("score_fad"),
    script:
        "../workflow/scripts/score_fad.py"


rule score_text:
    """Text metrics of every arm on held-out tags, and which arms they tell apart."""
    input:
        unpack(heldout_captions),
        pairs="<results>/distill/pairs.parquet",
        taxonomy=setting("distill.taxonomy"),
        bertscore=local("scores.text.bertscore.model", "scores.text.bertscore.revision"),
        mauve=local("scores.text.mauve.model", "scores.text.mauve.revision"),
    output:
        scores="<results>/scores/text.json",
    log:
        "<logs>/score_text.log",
    benchmark:
        "<benchmarks>/score_text.tsv"
    conda:
        "../envs/text.yaml"
    threads: 4
    resources:
        gpu=1,
        mem_mb=grows(16000),
        runtime=grows(60),
    params:
        arms=text_arms(),
        text=section("scores.text", "bootstraps", "bertscore", "mauve"),
        seed=setting("seed"),
        code=fingerprint("score_text"),
    script:
        "../workflow/scripts/score_text.py"
