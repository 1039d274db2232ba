"""Join everything into the dataset, with the record of the run that made it.

inputs:  tags, captions, clips and CLAP scores of arm conceptcaps; every stage's figures as evidence
outputs: <results>/conceptcaps.parquet, <results>/hub, <results>/run/{config.yaml,provenance.json}
steps:   record_run, export_dataset, export_hub
"""

EVIDENCE = [
    "<results>/vae/metrics.json",
    "<results>/captioner/metrics.json",
    "<results>/scores/text.json",
    "<results>/scores/clap.json",
    "<results>/scores/fad.json",
    "<results>/gtzan/metrics.json",
    "<results>/tcav/scores.parquet",
]


localrules:
    record_run,


rule record_run:
    """Write down the merged config, versions, commit, model revisions and seeds.

    It waits for the evidence, so that it sees the commits of models that the stages downloaded.
    """
    input:
        EVIDENCE,
    output:
        config="<results>/run/config.yaml",
        provenance="<results>/run/provenance.json",
    log:
        "<logs>/record_run.log",
    benchmark:
        "<benchmarks>/record_run.tsv"
    conda:
        "../envs/core.yaml"
    threads: 1
    params:
        config=canonical(config),
        code=fingerprint("record_run"),
    script:
        "../workflow/scripts/record_run.py"


rule export_dataset:
    """One row per clip; no tag set in two splits; the run's figures in the table's metadata."""
    input:
        tags="<results>/tags/tags.parquet",
        captions=expand(
            "<results>/captions/conceptcaps/{shard}.parquet", shard=shards("conceptcaps")
        ),
        audio=expand("<results>/audio/conceptcaps/{shard}.parquet", shard=shards("conceptcaps")),
        clap=expand(
            "<results>/scores/conceptcaps/clap/{shard}.parquet", shard=shards("conceptcaps")
        ),
        provenance="<results>/run/provenance.json",
        evidence=EVIDENCE,
    output:
        dataset=ensure("<results>/conceptcaps.parquet", non_empty=True),
    log:
        "<logs>/export_dataset.log",
    benchmark:
        "<benchmarks>/export_dataset.tsv"
    conda:
        "../envs/core.yaml"
    threads: 2
    resources:
        mem_mb=grows(8000),
        runtime=grows(60),
    params:
        dataset=section("dataset", "validation", "test"),
        seed=setting("seed"),
        code=fingerprint("export_dataset"),
    script:
        "../workflow/scripts/export_dataset.py"


rule export_hub:
    """The Hugging Face folder: six configs, three splits, a card written from the run's figures."""
    input:
        dataset="<results>/conceptcaps.parquet",
        audio=expand("<results>/audio/conceptcaps/{shard}.parquet", shard=shards("conceptcaps")),
        config="<results>/run/config.yaml",
        evidence=EVIDENCE,
    output:
        hub=directory("<results>/hub"),
    log:
        "<logs>/export_hub.log",
    benchmark:
        "<benchmarks>/export_hub.tsv"
    conda:
        "../envs/core.yaml"
    threads: 2
    resources:
        mem_mb=grows(8000),
        runtime=grows(120),
    params:
        dataset=section("dataset", "name", "subsets", "max_shard_mb", "licence"),
        code=fingerprint("export_hub"),
    script:
        "../workflow/scripts/export_hub.py"
