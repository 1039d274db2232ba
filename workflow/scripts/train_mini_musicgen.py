"""Train the miniature MusicGen on captions and codec tokens of synthesised clips."""

import json

from conceptcaps import mini_musicgen, runlog

with runlog.capture(snakemake.log[0], threads=snakemake.threads):
    mini_musicgen.train(
        codec=snakemake.input.codec,
        spec=json.loads(snakemake.params.spec),
        world=json.loads(snakemake.params.world),
        seed=snakemake.params.seed,
        output=snakemake.output.model,
    )
