"""Write the dataset as WebDataset shards."""

from conceptcaps import runlog, tarshards

with runlog.capture(snakemake.log[0], threads=snakemake.threads):
    tarshards.export_tars(
        dataset=snakemake.input.dataset,
        audio=snakemake.input.audio,
        max_shard_mb=snakemake.params.max_shard_mb,
        output=snakemake.output.shards,
    )
