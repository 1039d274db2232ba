"""Write the page that browses, plays and compares the clips."""

from pathlib import Path

from conceptcaps import explorer, runlog

arms = snakemake.params.arms
captions, audio, clap = (
    {arm: [path for path in paths if arm in Path(path).parts[-3:-1]] for arm in arms}
    for paths in (snakemake.input.captions, snakemake.input.audio, snakemake.input.clap)
)

with runlog.capture(snakemake.log[0], threads=snakemake.threads):
    explorer.export_explorer(
        dataset=snakemake.input.dataset,
        tags=snakemake.input.tags,
        arms={arm: explorer.Arm(captions[arm], audio[arm], clap[arm]) for arm in arms},
        taxonomy=snakemake.input.taxonomy,
        scorecard=snakemake.input.scorecard,
        figures=snakemake.input.figures,
        captions=snakemake.input.figure_captions,
        config=snakemake.input.config,
        page=snakemake.input.page,
        name=snakemake.params.name,
        clips_per_arm=snakemake.params.clips_per_arm,
        output=snakemake.output.explorer,
    )
