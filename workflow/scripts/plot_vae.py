"""The VAE's training curve."""

from conceptcaps import runlog, tagfigures

with runlog.capture(snakemake.log[0], threads=snakemake.threads):
    tagfigures.plot_vae(
        history=snakemake.input.history,
        output=snakemake.output,
    )
