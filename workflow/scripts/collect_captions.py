"""Write the captions of one shard that no model writes."""

import json

from conceptcaps import collection, runlog

with runlog.capture(snakemake.log[0], threads=snakemake.threads):
    collection.collect_shard(
        pairs=snakemake.input.pairs,
        shard=int(snakemake.wildcards.shard),
        shard_items=snakemake.params.shard_items,
        items=snakemake.params.last_item,
        arm=snakemake.wildcards.arm,
        brought=next(iter(snakemake.input.brought), None),
        min_yield=json.loads(snakemake.params.gates)["min_yield"],
        output=snakemake.output.captions,
        ledger=snakemake.output.ledger,
        drafts=snakemake.output.drafts,
    )
