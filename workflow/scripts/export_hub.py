"""Lay the dataset out as a Hugging Face folder: configs, splits, card."""

import json

from conceptcaps import hub, runlog

with runlog.capture(snakemake.log[0], threads=snakemake.threads):
    hub.export_hub(
        dataset=snakemake.input.dataset,
        audio=snakemake.input.audio,
        evidence=snakemake.input.evidence,
        figures=snakemake.input.figures,
        captions=snakemake.input.captions,
        config=snakemake.input.config,
        provenance=snakemake.input.provenance,
        spec=hub.Spec(**json.loads(snakemake.params.dataset)),
        output=snakemake.output.hub,
    )
