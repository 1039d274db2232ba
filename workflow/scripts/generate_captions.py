"""Write the captions of one shard of tag sets in one arm."""

import json

from conceptcaps import captioner, captions, runlog

with runlog.capture(snakemake.log[0], threads=snakemake.threads):
    captions.generate_shard(
        tags=snakemake.input.tags,
        shard=int(snakemake.wildcards.shard),
        shard_items=snakemake.params.shard_items,
        items=snakemake.params.last_item,
        arm=snakemake.wildcards.arm,
        adapter=snakemake.input.get("adapter"),
        base=captioner.Base(**json.loads(snakemake.params.base)),
        spec=captions.Spec(
            **json.loads(snakemake.params.generate), **json.loads(snakemake.params.gates)
        ),
        seed=snakemake.params.seed,
        output=snakemake.output.captions,
        ledger=snakemake.output.ledger,
    )
