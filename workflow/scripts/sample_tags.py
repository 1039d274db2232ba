"""Sample the tag sets of the dataset from the fitted VAE, each of them once."""

import json

from conceptcaps import runlog, tagsets

with runlog.capture(snakemake.log[0], threads=snakemake.threads):
    tagsets.sample(
        model=snakemake.input.model,
        config=snakemake.input.config,
        taxonomy_file=snakemake.input.taxonomy,
        pairs=snakemake.input.pairs,
        spec=tagsets.Spec(
            **json.loads(snakemake.params.tags), **json.loads(snakemake.params.gates)
        ),
        seed=snakemake.params.seed,
        output=snakemake.output.tags,
        metrics=snakemake.output.metrics,
    )
