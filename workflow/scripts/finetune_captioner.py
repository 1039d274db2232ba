"""Fine-tune the language model on (tags, human caption) pairs with QLoRA; prove that it moved."""

import json

from conceptcaps import captioner, runlog

with runlog.capture(snakemake.log[0], threads=snakemake.threads):
    captioner.finetune(
        pairs=snakemake.input.pairs,
        base=captioner.Base(**json.loads(snakemake.params.base)),
        spec=captioner.Finetune(
            **json.loads(snakemake.params.finetune), **json.loads(snakemake.params.gates)
        ),
        seed=snakemake.params.seed,
        adapter=snakemake.output.adapter,
        metrics=snakemake.output.metrics,
        history=snakemake.output.history,
    )
