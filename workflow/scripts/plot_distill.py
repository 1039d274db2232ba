"""What distillation does to MusicCaps' labels and captions."""

from conceptcaps import runlog, tagfigures

with runlog.capture(snakemake.log[0], threads=snakemake.threads):
    tagfigures.plot_distill(
        clips=snakemake.input.clips,
        pairs=snakemake.input.pairs,
        tags=snakemake.input.tags,
        taxonomy_file=snakemake.input.taxonomy,
        output=snakemake.output,
    )
