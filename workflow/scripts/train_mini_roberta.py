"""Train the miniature RoBERTa, which BERTScore reads, by masked words."""

import json

from conceptcaps import mini_roberta, runlog

with runlog.capture(snakemake.log[0], threads=snakemake.threads):
    mini_roberta.train(
        spec=json.loads(snakemake.params.spec),
        seed=snakemake.params.seed,
        output=snakemake.output.model,
    )
