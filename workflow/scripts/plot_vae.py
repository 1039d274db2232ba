"""The VAE's training curve."""

from conceptcaps import figures, runlog

with runlog.capture(snakemake.log[0], threads=snakemake.threads):
    figures.plot_vae(
        history=snakemake.input.history,
        output=snakemake.output,
    )
