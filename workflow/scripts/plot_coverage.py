"""Draw the dataset's coverage of the taxonomy."""

from conceptcaps import coverage, runlog

with runlog.capture(snakemake.log[0], threads=snakemake.threads):
    coverage.plot_coverage(
        dataset=snakemake.input.dataset,
        taxonomy=snakemake.input.taxonomy,
        output=snakemake.output,
    )
