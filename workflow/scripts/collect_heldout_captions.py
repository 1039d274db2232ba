"""Write the captions of held-out pairs that no model writes."""

from conceptcaps import collection, runlog

with runlog.capture(snakemake.log[0], threads=snakemake.threads):
    collection.collect_heldout(
        pairs=snakemake.input.pairs,
        items=snakemake.params.n_items,
        arm=snakemake.wildcards.arm,
        brought=next(iter(snakemake.input.brought), None),
        output=snakemake.output.captions,
    )
