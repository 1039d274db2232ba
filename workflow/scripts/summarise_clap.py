"""Bring the CLAP scores of all arms together, each beside its shuffled-caption baseline."""

import json

from conceptcaps import agreement, clap, runlog

with runlog.capture(snakemake.log[0], threads=snakemake.threads):
    agreement.summarise(
        shards={arm: snakemake.input[arm] for arm in snakemake.params.arms},
        controls=snakemake.input.controls,
        spec=clap.Spec(**json.loads(snakemake.params.clap)),
        seed=snakemake.params.seed,
        output=snakemake.output.scores,
    )
