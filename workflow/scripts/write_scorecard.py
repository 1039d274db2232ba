"""The paper's claims beside what this run measured, as JSON and as a page."""

from conceptcaps import runlog, scorecard

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
