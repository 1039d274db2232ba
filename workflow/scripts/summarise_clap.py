"""Bring the CLAP scores of all arms together, each beside its shuffled-caption baseline."""

import json

from conceptcaps import clap, runlog

with runlog.capture(snakemake.log[0], threads=snakemake.threads):
    clap.summarise(
        shards={arm: snakemake.input[arm] for arm in snakemake.params.arms},
        spec=clap.Spec(**json.loads(snakemake.params.clap)),
        seed=snakemake.params.seed,
        output=snakemake.output.scores,
    )
