"""Frechet audio distance of each arm to the reference, at equal N, with floor and controls."""

import json

from conceptcaps import frechet, runlog

with runlog.capture(snakemake.log[0], threads=snakemake.threads):
    frechet.score(
        reference=snakemake.input.reference,
        controls=snakemake.input.controls,
        shards={arm: snakemake.input[arm] for arm in snakemake.params.arms},
        spec=frechet.Spec(**json.loads(snakemake.params.fad)),
        recipe=json.loads(snakemake.params.clap),
        seed=snakemake.params.seed,
        output=snakemake.output.scores,
    )
