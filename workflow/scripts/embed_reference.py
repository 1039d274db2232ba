"""Embed the reference corpus of the Frechet distance, and its controls."""

import json

from conceptcaps import clap, reference, runlog

with runlog.capture(snakemake.log[0], threads=snakemake.threads):
    reference.embed_reference(
        tables=[] if snakemake.params.folder else list(snakemake.input.clips),
        folder=snakemake.params.folder,
        controls=reference.Controls(**json.loads(snakemake.params.controls)),
        spec=clap.Spec(**json.loads(snakemake.params.clap)),
        seed=snakemake.params.seed,
        output=snakemake.output.embeddings,
        controls_output=snakemake.output.controls,
        ledger=snakemake.output.ledger,
    )
