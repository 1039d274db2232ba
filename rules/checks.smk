"""Put the miniature world to the test: do clips, samples and scores follow what was planted?

inputs:  the models, <results>/{vae,gtzan,tcav,scores}/ of a miniature run
outputs: <results>/miniature/{clips.parquet,clips.json,tags.json,page.html}, <results>/checks.json
steps:   play_miniature, measure_miniature, check_miniature
"""


rule play_miniature:
    """Play tag sets that no model was trained on: synthesised, through the codec, generated, noise."""
    input:
        model=local("audio.model", "audio.revision"),
    output:
        clips="<results>/miniature/clips.parquet",
    log:
        "<logs>/play_miniature.log",
    benchmark:
        "<benchmarks>/play_miniature.tsv"
    conda:
        "../envs/audio.yaml"
    threads: 4
    resources:
        gpu=1,
        mem_mb=grows(8000),
        runtime=grows(60),
    params:
        audio=section("audio"),
        gates=gates("audio"),
        n_items=setting("mini.check.items"),
        clip_s=setting("mini.clip_s"),
        seed=setting("seed"),
        code=fingerprint("play_miniature"),
    script:
        "../workflow/scripts/play_miniature.py"


rule measure_miniature:
    """What a judge and CLAP hear in the clips; the tag model's samples against the grammar."""
    input:
        clips="<results>/miniature/clips.parquet",
        judge=zoo_model("judge"),
        clap=local("scores.clap.model", "scores.clap.revision"),
        vae="<results>/vae/model.safetensors",
        vae_config="<results>/vae/config.json",
        taxonomy=setting("distill.taxonomy"),
    output:
        clips="<results>/miniature/clips.json",
        tags="<results>/miniature/tags.json",
    log:
        "<logs>/measure_miniature.log",
    benchmark:
        "<benchmarks>/measure_miniature.tsv"
    conda:
        "../envs/audio.yaml"
    threads: 4
    resources:
        gpu=1,
        mem_mb=grows(8000),
        runtime=grows(60),
    params:
        judge=f"{setting('mini.models')}/judge",
        clap=section("scores.clap"),
        tags=section("tags", "items", *SAMPLING),
        tags_gates=gates("tags"),
        bootstraps=setting("mini.check.bootstraps"),
        seed=setting("seed"),
        code=fingerprint("measure_miniature"),
    script:
        "../workflow/scripts/measure_miniature.py"


rule check_miniature:
    """Hold a miniature run's figures against their bounds."""
    input:
        clips="<results>/miniature/clips.parquet",
        clip_figures="<results>/miniature/clips.json",
        tag_figures="<results>/miniature/tags.json",
        drafts=arm_files("<results>/captions/{arm}/drafts/{shard}.parquet")["conceptcaps"],
        text="<results>/scores/text.json",
        genrecnn="<results>/gtzan/metrics.json",
        tcav="<results>/tcav/scores.parquet",
    output:
        checks="<results>/checks.json",
        page=report(
            "<results>/miniature/page.html",
            caption="../workflow/report/miniature.rst",
            category="Miniature",
            labels={"figure": "checks and clips"},
        ),
    log:
        "<logs>/check_miniature.log",
    benchmark:
        "<benchmarks>/check_miniature.tsv"
    conda:
        "../envs/core.yaml"
    threads: 1
    resources:
        mem_mb=grows(2000),
        runtime=grows(20),
    params:
        examples=setting("mini.check.examples"),
        code=fingerprint("check_miniature"),
    script:
        "../workflow/scripts/check_miniature.py"
