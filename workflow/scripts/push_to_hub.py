"""Send the hub folder, or say what would be sent."""

import json

from conceptcaps import publish, runlog

with runlog.capture(snakemake.log[0], threads=snakemake.threads):
    publish.push(
        snakemake.input.hub,
        spec=publish.Spec(**json.loads(snakemake.params.push)),
        report=snakemake.output.report,
    )
