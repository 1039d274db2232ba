"""The TCAV scores of every concept and genre, insignificant cells hatched; the CAVs themselves."""

from types import SimpleNamespace

from conceptcaps import cavfigures, figures, runlog

with runlog.capture(snakemake.log[0], threads=snakemake.threads):
    figures.plot_tcav(
        scores=snakemake.input.scores,
        output=snakemake.output,
    )
    cavfigures.plot_cavs(
        scores=snakemake.input.scores,
        output=SimpleNamespace(png=snakemake.output.cavs_png, svg=snakemake.output.cavs_svg),
    )
