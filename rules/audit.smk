"""Hear whether the clips hold what their tags say.

inputs:  tags, clips and CLAP tables of arm conceptcaps; clips whose tags are known
outputs: <results>/audit/{clips.parquet,metrics.json}
steps:   audit_concepts
"""


rule audit_concepts:
    """A probability for every tag of every clip, from the audio alone; a card of each tag."""
    input:
        tags="<results>/tags/tags.parquet",
        taxonomy="<results>/distill/taxonomy.json",
        groups=setting("distill.taxonomy"),
        audio=expand("<results>/audio/conceptcaps/{shard}.parquet", shard=shards("conceptcaps")),
        clap=expand(
            "<results>/scores/conceptcaps/clap/{shard}.parquet", shard=shards("conceptcaps")
        ),
        labelled=labelled_clips(),
        reference="<results>/scores/reference/clap.parquet",
        model=local("scores.clap.model", "scores.clap.revision"),
    output:
        clips=ensure("<results>/audit/clips.parquet", non_empty=True),
        metrics="<results>/audit/metrics.json",
    log:
        "<logs>/audit_concepts.log",
    benchmark:
        "<benchmarks>/audit_concepts.tsv"
    conda:
        "../envs/audio.yaml"
    threads: 4
    resources:
        mem_mb=grows(16000),
        runtime=grows(120),
    params:
        audit=section("audit"),
        clap=section("scores.clap"),
        seed=setting("seed"),
        code=fingerprint("audit_concepts"),
    script:
        "../workflow/scripts/audit_concepts.py"
