"""Measure whether the miniature's clips and tag samples follow what was planted."""

import json

from conceptcaps import clap, miniature, runlog, tagsets

with runlog.capture(snakemake.log[0], threads=snakemake.threads):
    miniature.measure_clips(
        clips=snakemake.input.clips,
        judge=snakemake.params.judge,
        clap_spec=clap.Spec(**json.loads(snakemake.params.clap)),
        bootstraps=snakemake.params.bootstraps,
        seed=snakemake.params.seed,
        output=snakemake.output.clips,
    )
    miniature.measure_tags(
        model=snakemake.input.vae,
        config=snakemake.input.vae_config,
        taxonomy_file=snakemake.input.taxonomy,
        spec=tagsets.Spec(
            **json.loads(snakemake.params.tags), **json.loads(snakemake.params.tags_gates)
        ),
        seed=snakemake.params.seed,
        output=snakemake.output.tags,
    )
