"""Train the miniature CLAP on pairs of captions and synthesised clips."""

import json

from conceptcaps import mini_clap, runlog

with runlog.capture(snakemake.log[0], threads=snakemake.threads):
    mini_clap.train(
        codec=snakemake.input.codec,
        spec=json.loads(snakemake.params.spec),
        world=json.loads(snakemake.params.world),
        seed=snakemake.params.seed,
        output=snakemake.output.model,
    )
