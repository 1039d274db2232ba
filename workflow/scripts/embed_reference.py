"""Embed the reference corpus of the Frechet distance with CLAP."""

import json

from conceptcaps import clap, runlog

with runlog.capture(snakemake.log[0], threads=snakemake.threads):
    clap.embed_reference(
        clips=snakemake.input.clips,
        controls=snakemake.params.controls,
        spec=clap.Spec(**json.loads(snakemake.params.clap)),
        seed=snakemake.params.seed,
        output=snakemake.output.embeddings,
        controls_output=snakemake.output.controls,
    )
