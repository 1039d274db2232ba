"""Hold the miniature run's figures against their bounds; write them down with clips to hear."""

from conceptcaps import mini_checks, mini_page, runlog

with runlog.capture(snakemake.log[0], threads=snakemake.threads):
    mini_checks.check(
        clips=snakemake.input.clip_figures,
        tags=snakemake.input.tag_figures,
        drafts=snakemake.input.drafts,
        text=snakemake.input.text,
        genrecnn=snakemake.input.genrecnn,
        tcav=snakemake.input.tcav,
        output=snakemake.output.checks,
    )
    mini_page.write(
        checks=snakemake.output.checks,
        clips=snakemake.input.clips,
        examples=snakemake.params.examples,
        output=snakemake.output.page,
    )
