"""The genre classifier's confusion matrix on held-out clips."""

from conceptcaps import figures, runlog

with runlog.capture(snakemake.log[0], threads=snakemake.threads):
    figures.plot_genrecnn(
        metrics=snakemake.input.metrics,
        output=snakemake.output,
    )
