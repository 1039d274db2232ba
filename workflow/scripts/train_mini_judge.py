"""Train the miniature judge, which hears tags, on the synthesiser's clips."""

import json

from conceptcaps import mini_judge, runlog

with runlog.capture(snakemake.log[0], threads=snakemake.threads):
    mini_judge.train(
        codec=snakemake.input.codec,
        spec=json.loads(snakemake.params.spec),
        world=json.loads(snakemake.params.world),
        seed=snakemake.params.seed,
        output=snakemake.output.model,
    )
