"""Play one shard of captions with MusicGen."""

import json

from conceptcaps import musicgen, runlog, takes

with runlog.capture(snakemake.log[0], threads=snakemake.threads):
    takes.generate_shard(
        captions=snakemake.input.captions,
        arm=snakemake.wildcards.arm,
        spec=musicgen.Spec.of(
            json.loads(snakemake.params.audio) | json.loads(snakemake.params.gates)
        ),
        seed=snakemake.params.seed,
        output=snakemake.output.audio,
        ledger=snakemake.output.ledger,
        takes=snakemake.output.takes,
    )
