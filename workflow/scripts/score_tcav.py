"""Test which concepts the genre classifier uses: TCAV with a null, a test and controls."""

import json

from conceptcaps import runlog, tcav

with runlog.capture(snakemake.log[0], threads=snakemake.threads):
    tcav.score(
        model=snakemake.input.model,
        config=snakemake.input.config,
        gtzan=snakemake.input.gtzan,
        tags=snakemake.input.tags,
        taxonomy=snakemake.input.taxonomy,
        audio=snakemake.input.audio,
        spec=tcav.Spec(**json.loads(snakemake.params.tcav)),
        seed=snakemake.params.seed,
        output=snakemake.output.scores,
        ledger=snakemake.output.concepts,
    )
