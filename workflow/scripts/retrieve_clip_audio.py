"""Download one shard of MusicCaps' own clips, as far as they still exist."""

import json

from conceptcaps import clipaudio, runlog

with runlog.capture(snakemake.log[0], threads=snakemake.threads):
    clipaudio.retrieve_shard(
        clips=snakemake.input.clips,
        shard=int(snakemake.wildcards.shard),
        shard_items=snakemake.params.shard_items,
        spec=clipaudio.Spec(
            **json.loads(snakemake.params.clip_audio), **json.loads(snakemake.params.gates)
        ),
        output=snakemake.output.audio,
        ledger=snakemake.output.ledger,
    )
