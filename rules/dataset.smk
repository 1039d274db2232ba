"""Join everything into the dataset, with the record of the run that made it.

inputs:  tags, captions, clips, CLAP scores and audit of arm conceptcaps; every stage's figures as evidence
outputs: <results>/conceptcaps.parquet, <results>/hub, <results>/run/{config.yaml,provenance.json}
steps:   record_run, export_dataset, export_hub; on demand export_webdataset, push_to_hub, export_explorer
"""

EVIDENCE = [
    "<results>/vae/metrics.json",
    "<results>/captioner/metrics.json",
    "<results>/scores/text.json",
    "<results>/scores/clap.json",
    "<results>/scores/fad.json",
    "<results>/gtzan/metrics.json",
    "<results>/tcav/scores.parquet",
    "<results>/audit/metrics.json",
]


localrules:
    record_run,
    push_to_hub,


rule record_run:
    """Write down the merged config, versions, commit, model revisions and seeds.

    It waits for the evidence, so that it sees the commits of models that the stages downloaded. It
    runs again when the code behind it changes, so that the data name the commit that made them.
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
        config=canonical({key: value for key, value in config.items() if key != "push"}),
        code=fingerprint("record_run", "export_dataset", "export_hub", "write_scorecard"),
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
        audit="<results>/audit/clips.parquet",
        config="<results>/run/config.yaml",
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
        dataset=section("dataset", "validation", "test", "licence"),
        seed=setting("seed"),
        code=fingerprint("export_dataset"),
    script:
        "../workflow/scripts/export_dataset.py"


rule export_hub:
    """The Hugging Face folder: six configs, three splits; card, datasheet, Croissant metadata, sums."""
    input:
        dataset="<results>/conceptcaps.parquet",
        audio=expand("<results>/audio/conceptcaps/{shard}.parquet", shard=shards("conceptcaps")),
        figures=expand("<results>/figures/{figure}.png", figure=FIGURES),
        captions=expand("workflow/report/{figure}.rst", figure=FIGURES),
        config="<results>/run/config.yaml",
        provenance="<results>/run/provenance.json",
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
        dataset=section("dataset", "name", "version", "subsets", "max_shard_mb", "licence"),
        code=fingerprint("export_hub"),
    script:
        "../workflow/scripts/export_hub.py"


rule export_webdataset:
    """On demand: the dataset as tar files, for training loops that stream."""
    input:
        dataset="<results>/conceptcaps.parquet",
        audio=expand("<results>/audio/conceptcaps/{shard}.parquet", shard=shards("conceptcaps")),
    output:
        shards=directory("<results>/webdataset"),
    log:
        "<logs>/export_webdataset.log",
    benchmark:
        "<benchmarks>/export_webdataset.tsv"
    conda:
        "../envs/core.yaml"
    threads: 1
    resources:
        mem_mb=grows(4000),
        runtime=grows(120),
    params:
        max_shard_mb=setting("dataset.max_shard_mb"),
        code=fingerprint("export_webdataset"),
    script:
        "../workflow/scripts/export_webdataset.py"


rule push_to_hub:
    """On demand: say what would be sent to the hub; send it where `push.send` is true."""
    input:
        hub="<results>/hub",
    output:
        report="<results>/push.json",
    log:
        "<logs>/push_to_hub.log",
    benchmark:
        "<benchmarks>/push_to_hub.tsv"
    conda:
        "../envs/core.yaml"
    threads: 1
    resources:
        mem_mb=grows(4000),
        runtime=grows(600),
    params:
        push=section("push"),
        code=fingerprint("push_to_hub"),
    script:
        "../workflow/scripts/push_to_hub.py"


rule export_explorer:
    """On demand: a static page to browse, hear and compare the clips of every arm."""
    input:
        dataset="<results>/conceptcaps.parquet",
        tags=["<results>/tags/tags.parquet", "<results>/distill/pairs.parquet"],
        captions=all_arm_files("<results>/captions/{arm}/{shard}.parquet"),
        audio=all_arm_files("<results>/audio/{arm}/{shard}.parquet"),
        clap=all_arm_files("<results>/scores/{arm}/clap/{shard}.parquet"),
        taxonomy=setting("distill.taxonomy"),
        scorecard="<results>/scorecard.json",
        figures=expand("<results>/figures/{figure}.png", figure=FIGURES),
        figure_captions=expand("workflow/report/{figure}.rst", figure=FIGURES),
        config="<results>/run/config.yaml",
        page=expand(
            "resources/explorer/{file}",
            file=["index.html", "explorer.css", "dom.js", "explorer.js", "report.js", "icon.svg"],
        ),
    output:
        explorer=directory("<results>/explorer"),
    log:
        "<logs>/export_explorer.log",
    benchmark:
        "<benchmarks>/export_explorer.tsv"
    conda:
        "../envs/core.yaml"
    threads: 1
    resources:
        mem_mb=grows(8000),
        runtime=grows(120),
    params:
        arms=arms(),
        name=setting("dataset.name"),
        clips_per_arm=setting("dataset.explorer_clips"),
        code=fingerprint("export_explorer"),
    script:
        "../workflow/scripts/export_explorer.py"
