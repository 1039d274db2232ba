"""List the checksums of the miniature world's models."""

from conceptcaps import runlog, zoo

with runlog.capture(snakemake.log[0], threads=snakemake.threads):
    zoo.write_checksums(snakemake.input.models, snakemake.output.checksums)
