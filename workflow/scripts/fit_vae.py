"""Fit the beta-VAE of tag sets and measure its held-out reconstruction and its prior samples."""

import json

from conceptcaps import runlog, vae

with runlog.capture(snakemake.log[0], threads=snakemake.threads):
    vae.fit(
        pairs=snakemake.input.pairs,
        taxonomy=snakemake.input.taxonomy,
        taxonomy_file=snakemake.input.taxonomy_file,
        spec=vae.Spec(**json.loads(snakemake.params.preset)),
        sampling=vae.Sampling(**json.loads(snakemake.params.sampling)),
        seed=snakemake.params.seed,
        model=snakemake.output.model,
        config=snakemake.output.config,
        metrics=snakemake.output.metrics,
        history=snakemake.output.history,
        latent=snakemake.output.latent,
    )
