"""Fit the VAE with each beta and crossover of the sweep and choose one on validation rows."""

import json

from conceptcaps import runlog, tagsweep

with runlog.capture(snakemake.log[0], threads=snakemake.threads):
    limits = json.loads(snakemake.params.sampling)
    tagsweep.sweep(
        pairs=snakemake.input.pairs,
        taxonomy=snakemake.input.taxonomy,
        taxonomy_file=snakemake.input.taxonomy_file,
        base=json.loads(snakemake.params.preset),
        prior=limits.pop("prior"),
        spec=tagsweep.Spec(**json.loads(snakemake.params.sweep)),
        limits=limits,
        seed=snakemake.params.seed,
        table=snakemake.output.table,
        metrics=snakemake.output.metrics,
    )
