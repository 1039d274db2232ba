"""Frechet audio distance of each arm to the reference, at equal N, with floor and controls."""

import json

from conceptcaps import distances, runlog

with runlog.capture(snakemake.log[0], threads=snakemake.threads):
    distances.score(
        reference=snakemake.input.reference,
        controls=snakemake.input.controls,
        shards={arm: snakemake.input[arm] for arm in snakemake.params.arms},
        spec=distances.Spec(**json.loads(snakemake.params.fad)),
        recipe=json.loads(snakemake.params.clap),
        seed=snakemake.params.seed,
        output=snakemake.output.scores,
    )
