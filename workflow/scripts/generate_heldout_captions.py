"""Write captions for the tags of held-out human pairs, to be compared with the human captions."""

import json

from conceptcaps import captions, chatmodel, decoding, runlog

with runlog.capture(snakemake.log[0], threads=snakemake.threads):
    captions.generate_heldout(
        pairs=snakemake.input.pairs,
        items=snakemake.params.n_items,
        arm=snakemake.wildcards.arm,
        adapter=next(iter(snakemake.input.adapter), None),
        base=chatmodel.Base(
            **json.loads(snakemake.params.base) | {"prompts": snakemake.input.prompts}
        ),
        spec=decoding.Spec(
            **json.loads(snakemake.params.generate), **json.loads(snakemake.params.gates)
        ),
        seed=snakemake.params.seed,
        output=snakemake.output.captions,
    )
