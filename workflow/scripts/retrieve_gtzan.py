"""Read the genre corpus (hub, folder or synthetic) into one audio table and its ledger."""

import json

from conceptcaps import gtzan, runlog

with runlog.capture(snakemake.log[0], threads=snakemake.threads):
    gtzan.retrieve(
        gtzan.Source(**json.loads(snakemake.params.source), **json.loads(snakemake.params.gates)),
        seed=snakemake.params.seed,
        output=snakemake.output.clips,
        ledger=snakemake.output.ledger,
    )
