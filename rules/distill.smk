"""Distill MusicCaps to clean (tags, caption) pairs over the taxonomy.

inputs:  <results>/musiccaps/clips.parquet, the taxonomy file
outputs: <results>/distill/{pairs,ledger}.parquet, <results>/distill/taxonomy.json;
         on demand <results>/taxonomy/{unmapped,heads,tags}.csv
steps:   distill_musiccaps; on demand propose_taxonomy
"""


rule distill_musiccaps:
    """Keep rows whose aspects cover enough categories; split them by tag set; say why for the rest."""
    input:
        clips="<results>/musiccaps/clips.parquet",
        taxonomy=setting("distill.taxonomy"),
    output:
        pairs=ensure("<results>/distill/pairs.parquet", non_empty=True),
        ledger="<results>/distill/ledger.parquet",
        taxonomy="<results>/distill/taxonomy.json",
    log:
        "<logs>/distill_musiccaps.log",
    benchmark:
        "<benchmarks>/distill_musiccaps.tsv"
    conda:
        "../envs/core.yaml"
    threads: 1
    resources:
        mem_mb=grows(2000),
        runtime=grows(15),
    params:
        distill=section("distill", "min_categories", "heldout"),
        seed=setting("seed"),
        code=fingerprint("distill_musiccaps"),
    script:
        "../workflow/scripts/distill_musiccaps.py"


rule propose_taxonomy:
    """On demand, for the taxonomy's editor: unnamed aspects by frequency and what they would add."""
    input:
        clips="<results>/musiccaps/clips.parquet",
        taxonomy=setting("distill.taxonomy"),
    output:
        unmapped="<results>/taxonomy/unmapped.csv",
        heads="<results>/taxonomy/heads.csv",
        tags="<results>/taxonomy/tags.csv",
    log:
        "<logs>/propose_taxonomy.log",
    benchmark:
        "<benchmarks>/propose_taxonomy.tsv"
    conda:
        "../envs/core.yaml"
    threads: 1
    resources:
        mem_mb=grows(2000),
        runtime=grows(15),
    params:
        min_categories=setting("distill.min_categories"),
        code=fingerprint("propose_taxonomy"),
    script:
        "../workflow/scripts/propose_taxonomy.py"
