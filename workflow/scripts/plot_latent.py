"""The VAE's latent space by genre."""

from conceptcaps import runlog, tagfigures

with runlog.capture(snakemake.log[0], threads=snakemake.threads):
    tagfigures.plot_latent(
        latent=snakemake.input.latent,
        seed=snakemake.params.seed,
        output=snakemake.output,
    )
