"""Play tag sets that no model was trained on, synthesised, through the codec, and generated."""

import json

from conceptcaps import miniature, musicgen, runlog

with runlog.capture(snakemake.log[0], threads=snakemake.threads):
    miniature.play(
        spec=musicgen.Spec.of(
            json.loads(snakemake.params.audio) | json.loads(snakemake.params.gates)
        ),
        clip_s=snakemake.params.clip_s,
        items=snakemake.params.n_items,
        seed=snakemake.params.seed,
        output=snakemake.output.clips,
    )
