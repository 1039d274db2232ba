"""Write the captions of one shard of tag sets in one arm."""

import json

from conceptcaps import arms, captions, chatmodel, decoding, gate, runlog

with runlog.capture(snakemake.log[0], threads=snakemake.threads):
    captions.generate_shard(
        tags=snakemake.input[arms.SOURCE[snakemake.wildcards.arm]],
        shard=int(snakemake.wildcards.shard),
        shard_items=snakemake.params.shard_items,
        items=snakemake.params.last_item,
        arm=snakemake.wildcards.arm,
        adapter=next(iter(snakemake.input.adapter), None),
        base=chatmodel.Base(
            **json.loads(snakemake.params.base) | {"prompts": snakemake.input.prompts}
        ),
        gate=gate.of_arm(
            snakemake.wildcards.arm,
            gate.Spec(**json.loads(snakemake.params.gate)),
            taxonomy=snakemake.input.taxonomy,
            pairs=snakemake.input.pairs,
        ),
        spec=decoding.Spec(
            **json.loads(snakemake.params.generate), **json.loads(snakemake.params.gates)
        ),
        seed=snakemake.params.seed,
        output=snakemake.output.captions,
        ledger=snakemake.output.ledger,
        drafts=snakemake.output.drafts,
    )
