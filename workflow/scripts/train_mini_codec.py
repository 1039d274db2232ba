"""Train the miniature EnCodec on the synthesiser's clips."""

import json

from conceptcaps import mini_codec, runlog

with runlog.capture(snakemake.log[0], threads=snakemake.threads):
    mini_codec.train(
        spec=json.loads(snakemake.params.spec),
        world=json.loads(snakemake.params.world),
        seed=snakemake.params.seed,
        output=snakemake.output.model,
    )
