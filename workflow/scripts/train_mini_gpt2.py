"""Train the miniature GPT-2, which MAUVE reads, on captions."""

import json

from conceptcaps import mini_gpt2, runlog

with runlog.capture(snakemake.log[0], threads=snakemake.threads):
    mini_gpt2.train(
        spec=json.loads(snakemake.params.spec),
        seed=snakemake.params.seed,
        output=snakemake.output.model,
    )
