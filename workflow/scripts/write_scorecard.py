"""The paper's claims beside what this run measured, as JSON, as a page and as a picture."""

from conceptcaps import claimsfigure, runlog, scorecard

with runlog.capture(snakemake.log[0], threads=snakemake.threads):
    scorecard.write(
        claims=snakemake.input.claims,
        evidence=[*snakemake.input.evidence, snakemake.input.tags],
        tcav=snakemake.input.tcav,
        dataset=snakemake.input.dataset,
        pairs=snakemake.input.pairs,
        config=snakemake.input.config,
        provenance=snakemake.input.provenance,
        output=snakemake.output.scorecard,
        page=snakemake.output.page,
    )
    claimsfigure.plot_claims(scorecard=snakemake.output.scorecard, output=snakemake.output)
