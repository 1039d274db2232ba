"""The captioner's training curve."""

from conceptcaps import curves, runlog

with runlog.capture(snakemake.log[0], threads=snakemake.threads):
    curves.plot_captioner(
        history=snakemake.input.history,
        output=snakemake.output,
    )
