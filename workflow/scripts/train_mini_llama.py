"""Pretrain the miniature language model on verbose captions and instructions."""

import json

from conceptcaps import mini_llama, runlog

with runlog.capture(snakemake.log[0], threads=snakemake.threads):
    mini_llama.train(
        prompts=snakemake.input.prompts,
        spec=json.loads(snakemake.params.spec),
        seed=snakemake.params.seed,
        output=snakemake.output.model,
    )
