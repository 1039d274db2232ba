"""The TCAV scores of every concept and genre, insignificant cells hatched."""

from conceptcaps import figures, runlog

with runlog.capture(snakemake.log[0], threads=snakemake.threads):
    figures.plot_tcav(
        scores=snakemake.input.scores,
        output=snakemake.output,
    )
