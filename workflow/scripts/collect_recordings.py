"""Write one shard of clips that are not played here, with their captions."""

import json

from conceptcaps import recordings, runlog

with runlog.capture(snakemake.log[0], threads=snakemake.threads):
    shard = {name: snakemake.output[name] for name in ("audio", "captions", "ledger")}
    if snakemake.params.folder is None:
        recordings.collect_clips(table=snakemake.input.table, rows=snakemake.input.clips, **shard)
    else:
        recordings.collect_folder(
            folder=snakemake.params.folder,
            shard=int(snakemake.wildcards.shard),
            shard_items=snakemake.params.shard_items,
            min_yield=json.loads(snakemake.params.gates)["min_yield"],
            **shard,
        )
