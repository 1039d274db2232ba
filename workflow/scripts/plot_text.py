"""The text metrics of every arm with their intervals."""

from conceptcaps import figures, runlog

with runlog.capture(snakemake.log[0], threads=snakemake.threads):
    figures.plot_text(
        scores=snakemake.input.scores,
        output=snakemake.output,
    )
