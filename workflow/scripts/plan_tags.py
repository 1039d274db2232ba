"""Write down what the tag sets depend on, all but their number."""

import hashlib
import json
from pathlib import Path

from conceptcaps import runlog
from conceptcaps.io import write_json

with runlog.capture(snakemake.log[0], threads=snakemake.threads):
    write_json(
        snakemake.output.plan,
        {
            "inputs": {
                name: hashlib.sha256(Path(path).read_bytes()).hexdigest()
                for name, path in snakemake.input.items()
            },
            "tags": json.loads(snakemake.params.tags),
            "seed": snakemake.params.seed,
            "sampler": json.loads(snakemake.params.sampler),
        },
    )
