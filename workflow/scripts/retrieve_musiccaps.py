"""Read the MusicCaps table (hub, file or synthetic) into one checked parquet table."""

import json

from conceptcaps import musiccaps, runlog

with runlog.capture(snakemake.log[0], threads=snakemake.threads):
    musiccaps.retrieve(
        musiccaps.Source(**json.loads(snakemake.params.source)),
        seed=snakemake.params.seed,
        output=snakemake.output.clips,
    )
