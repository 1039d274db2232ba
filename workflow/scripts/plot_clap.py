"""The CLAP scores of every arm, as distributions and means."""

from conceptcaps import figures, runlog

with runlog.capture(snakemake.log[0], threads=snakemake.threads):
    figures.plot_clap(
        shards={arm: snakemake.input[arm] for arm in snakemake.params.arms},
        output=snakemake.output,
    )
