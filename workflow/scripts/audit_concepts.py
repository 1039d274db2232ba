"""Hear whether every tag is in its clip: a probability for each, a card of each tag."""

import json

from conceptcaps import audit, clap, runlog
from conceptcaps.taxonomy import load_exclusive

with runlog.capture(snakemake.log[0], threads=snakemake.threads):
    audit.audit(
        tags=snakemake.input.tags,
        taxonomy=snakemake.input.taxonomy,
        exclusive=load_exclusive(snakemake.input.groups),
        audio=snakemake.input.audio,
        scored=snakemake.input.clap,
        labelled=snakemake.input.labelled,
        reference=snakemake.input.reference,
        clap_spec=clap.Spec(**json.loads(snakemake.params.clap)),
        spec=audit.Spec(**json.loads(snakemake.params.audit)),
        seed=snakemake.params.seed,
        output=snakemake.output.clips,
        metrics=snakemake.output.metrics,
    )
