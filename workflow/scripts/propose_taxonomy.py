"""Tell the taxonomy's editor which aspects name no tag, and what naming them would add."""

from conceptcaps import proposal, runlog

with runlog.capture(snakemake.log[0], threads=snakemake.threads):
    proposal.propose(
        clips=snakemake.input.clips,
        taxonomy_file=snakemake.input.taxonomy,
        min_categories=snakemake.params.min_categories,
        unmapped=snakemake.output.unmapped,
        heads=snakemake.output.heads,
        tags=snakemake.output.tags,
    )
