"""Train the genre classifier that TCAV looks into; report it on held-out clips."""

import json

from conceptcaps import genrecnn, runlog

with runlog.capture(snakemake.log[0], threads=snakemake.threads):
    genrecnn.fit(
        clips=snakemake.input.clips,
        spec=genrecnn.Spec(**json.loads(snakemake.params.classifier)),
        sampling_rate_hz=snakemake.params.sampling_rate_hz,
        seed=snakemake.params.seed,
        splits=snakemake.input.splits,
        model=snakemake.output.model,
        config=snakemake.output.config,
        metrics=snakemake.output.metrics,
    )
