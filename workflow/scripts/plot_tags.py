"""The tag frequencies and tags per set of MusicCaps, the distilled pairs and the samples."""

from conceptcaps import runlog, tagfigures

with runlog.capture(snakemake.log[0], threads=snakemake.threads):
    tagfigures.plot_tags(
        clips=snakemake.input.clips,
        pairs=snakemake.input.pairs,
        tags=snakemake.input.tags,
        output=snakemake.output,
    )
