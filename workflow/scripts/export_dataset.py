"""Join tags, captions, audio and scores into the dataset table, split by tag set."""

import json

from conceptcaps import export, runlog

with runlog.capture(snakemake.log[0], threads=snakemake.threads):
    export.export_table(
        tags=snakemake.input.tags,
        captions=snakemake.input.captions,
        audio=snakemake.input.audio,
        clap=snakemake.input.clap,
        audit=[snakemake.input.audit],
        config=snakemake.input.config,
        provenance=snakemake.input.provenance,
        evidence=snakemake.input.evidence,
        spec=export.Spec(**json.loads(snakemake.params.dataset)),
        seed=snakemake.params.seed,
        output=snakemake.output.dataset,
    )
