"""Embed one shard of clips and captions with CLAP and score their agreement."""

import json

from conceptcaps import clap, runlog

with runlog.capture(snakemake.log[0], threads=snakemake.threads):
    clap.score_shard(
        audio=snakemake.input.audio,
        captions=snakemake.input.captions,
        spec=clap.Spec(**json.loads(snakemake.params.clap)),
        output=snakemake.output.scores,
    )
