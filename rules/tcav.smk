"""Train a genre classifier and ask which of the dataset's concepts it uses.

inputs:  <results>/gtzan/clips.parquet, the clips and tags of arm conceptcaps
outputs: <results>/gtzan/{model.safetensors,config.json,metrics.json}, <results>/tcav/{scores,concepts}.parquet
steps:   fit_genrecnn, score_tcav
"""


rule fit_genrecnn:
    """Train the log-mel CNN; accuracy, confusion and calibration on held-out clips."""
    input:
        clips="<results>/gtzan/clips.parquet",
        splits=split_lists(),
    output:
        model="<results>/gtzan/model.safetensors",
        config="<results>/gtzan/config.json",
        metrics="<results>/gtzan/metrics.json",
    log:
        "<logs>/fit_genrecnn.log",
    benchmark:
        "<benchmarks>/fit_genrecnn.tsv"
    conda:
        "../envs/audio.yaml"
    threads: 8
    resources:
        gpu=1,
        mem_mb=grows(16000),
        runtime=grows(60),
    params:
        classifier=section("gtzan.classifier"),
        sampling_rate_hz=setting("gtzan.sampling_rate_hz"),
        seed=setting("seed"),
        code=fingerprint("fit_genrecnn"),
    script:
        "../workflow/scripts/fit_genrecnn.py"


rule score_tcav:
    """TCAV with random-set null, two tests, Holm's correction and two controls."""
    input:
        model="<results>/gtzan/model.safetensors",
        config="<results>/gtzan/config.json",
        gtzan="<results>/gtzan/clips.parquet",
        tags="<results>/tags/tags.parquet",
        taxonomy="<results>/distill/taxonomy.json",
        audio=expand("<results>/audio/conceptcaps/{shard}.parquet", shard=shards("conceptcaps")),
    output:
        scores=ensure("<results>/tcav/scores.parquet", non_empty=True),
        concepts="<results>/tcav/concepts.parquet",
    log:
        "<logs>/score_tcav.log",
    benchmark:
        "<benchmarks>/score_tcav.tsv"
    conda:
        "../envs/audio.yaml"
    threads: 8
    resources:
        gpu=1,
        mem_mb=grows(32000),
        runtime=grows(120),
    params:
        tcav=section("tcav"),
        seed=setting("seed"),
        code=fingerprint("score_tcav"),
    script:
        "../workflow/scripts/score_tcav.py"
