"""Keep the clips whose aspects cover enough categories of the taxonomy; say why for the others."""

import json

from conceptcaps import distill, runlog

with runlog.capture(snakemake.log[0], threads=snakemake.threads):
    distill.distill(
        clips=snakemake.input.clips,
        taxonomy_file=snakemake.input.taxonomy,
        spec=distill.Spec(**json.loads(snakemake.params.distill)),
        seed=snakemake.params.seed,
        pairs=snakemake.output.pairs,
        ledger=snakemake.output.ledger,
        taxonomy=snakemake.output.taxonomy,
    )
