"""Write down what this run is: merged config, versions, commit, model revisions, seeds."""

import json

from conceptcaps import provenance, runlog

with runlog.capture(snakemake.log[0], threads=snakemake.threads):
    provenance.record(
        config=json.loads(snakemake.params.config),
        config_output=snakemake.output.config,
        provenance_output=snakemake.output.provenance,
    )
