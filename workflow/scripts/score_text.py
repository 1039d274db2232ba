"""Compare each arm's captions for held-out tags with the human captions."""

import json

from conceptcaps import runlog, textmetrics

with runlog.capture(snakemake.log[0], threads=snakemake.threads):
    textmetrics.score(
        pairs=snakemake.input.pairs,
        captions={arm: snakemake.input[arm] for arm in snakemake.params.arms},
        taxonomy=snakemake.input.taxonomy,
        spec=textmetrics.Spec(**json.loads(snakemake.params.text)),
        seed=snakemake.params.seed,
        output=snakemake.output.scores,
    )
