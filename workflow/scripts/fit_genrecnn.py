"""Train the genre classifier that TCAV looks into; report it on held-out clips."""

import json

from conceptcaps import genrecnn, runlog

settings = json.loads(snakemake.params.classifier)
del settings["splits"]  # an input: its files

with runlog.capture(snakemake.log[0], threads=snakemake.threads):
    genrecnn.fit(
        clips=snakemake.input.clips,
        spec=genrecnn.Spec(**settings),
        sampling_rate_hz=snakemake.params.sampling_rate_hz,
        seed=snakemake.params.seed,
        splits=snakemake.input.splits,
        model=snakemake.output.model,
        config=snakemake.output.config,
        metrics=snakemake.output.metrics,
    )
