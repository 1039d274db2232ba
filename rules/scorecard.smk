"""Hold the paper's claims against what this run measured.

inputs:  the claims, every stage's figures, the dataset
outputs: <results>/scorecard.{json,html}, <results>/figures/claims.{png,svg}
steps:   write_scorecard
"""


rule write_scorecard:
    """Every claim of the paper, its number, ours by its protocol and by the right one."""
    input:
        claims="resources/scorecard.yaml",
        evidence=EVIDENCE,
        tags="<results>/tags/metrics.json",
        tcav="<results>/tcav/scores.parquet",
        dataset="<results>/conceptcaps.parquet",
        pairs="<results>/distill/pairs.parquet",
        config="<results>/run/config.yaml",
        provenance="<results>/run/provenance.json",
    output:
        scorecard="<results>/scorecard.json",
        page=report(
            "<results>/scorecard.html",
            caption="../workflow/report/scorecard.rst",
            category="Scorecard",
            labels={"figure": "the paper's claims, in full"},
        ),
        png=report(
            "<results>/figures/claims.png",
            caption="../workflow/report/claims.rst",
            category="Scorecard",
            labels={"figure": "the paper's claims, as a picture"},
        ),
        svg="<results>/figures/claims.svg",
    log:
        "<logs>/write_scorecard.log",
    benchmark:
        "<benchmarks>/write_scorecard.tsv"
    conda:
        "../envs/core.yaml"
    threads: 1
    resources:
        mem_mb=grows(4000),
        runtime=grows(20),
    params:
        code=fingerprint("write_scorecard"),
    script:
        "../workflow/scripts/write_scorecard.py"
