"""The CLAP scores of every arm, as distributions and means."""

from conceptcaps import clapfigure, runlog

with runlog.capture(snakemake.log[0], threads=snakemake.threads):
    clapfigure.plot_clap(
        scores=snakemake.input.scores,
        output=snakemake.output,
    )
