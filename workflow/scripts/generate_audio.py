"""Play one shard of captions with MusicGen."""

import json

from conceptcaps import musicgen, runlog

with runlog.capture(snakemake.log[0], threads=snakemake.threads):
    musicgen.generate_shard(
        captions=snakemake.input.captions,
        arm=snakemake.wildcards.arm,
        spec=musicgen.Spec(
            **json.loads(snakemake.params.audio), **json.loads(snakemake.params.gates)
        ),
        seed=snakemake.params.seed,
        output=snakemake.output.audio,
        ledger=snakemake.output.ledger,
    )
