"""Fit the baselines and the VAE's presets to the same tag sets and measure them alike."""

import json

from conceptcaps import runlog, tagmodels, vae

with runlog.capture(snakemake.log[0], threads=snakemake.threads):
    asked = json.loads(snakemake.params.compared)
    tagmodels.compare(
        pairs=snakemake.input.pairs,
        taxonomy=snakemake.input.taxonomy,
        taxonomy_file=snakemake.input.taxonomy_file,
        presets={
            name: vae.Spec(**preset)
            for name, preset in json.loads(snakemake.params.presets).items()
            if name in asked
        },
        priors=asked,
        spec=tagmodels.Spec(**json.loads(snakemake.params.baselines)),
        limits=json.loads(snakemake.params.limits),
        seed=snakemake.params.seed,
        table=snakemake.output.table,
        metrics=snakemake.output.metrics,
    )
