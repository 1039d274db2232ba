"""The figure of the CAVs: how good they are, and how far they lie from what random sets give."""

from pathlib import Path

import numpy as np

from conceptcaps.figurestyle import BLUE, GREY, ORANGE, WIDTH, drawing
from conceptcaps.io import read_rows

_MOST = 24  # concepts shown, those with the greatest alignment


def plot_cavs(*, scores: str | Path, output) -> None:
    """Draw the CAVs' AUC, and their alignment beside its null distribution, at the last layer.

    Left: bars of the mean AUC on held-out clips, pale where permuted labels give as much (p of 0.05
    or more); the dot is the cosine of classifier and pattern CAV. Right: of each concept the class
    that it is most aligned with, every dot the CAV of a random set; grey is random against random.

    Args:
        scores: table `schemas.TCAV`.
        output: object with the paths `png` and `svg`.
    """
    rows = read_rows(scores)
    layer = rows[-1]["layer"]
    rows = [row for row in rows if row["layer"] == layer and row["control"] != "planted"]
    strongest = {}
    for row in rows:
        kept = strongest.get(row["concept"])
        if kept is None or abs(row["alignment"]) > abs(kept["alignment"]):
            strongest[row["concept"]] = row
    shown = sorted(strongest.values(), key=lambda row: (row["control"], -abs(row["alignment"])))
    shown = shown[: _MOST + 1] if len(shown) <= _MOST + 1 else [*shown[:_MOST], shown[-1]]
    shown = shown[::-1]  # the first on top
    y = np.arange(len(shown))
    with drawing(output, height=1.3 + 0.22 * len(shown), width=WIDTH) as figure:
        quality, null = figure.subplots(1, 2, sharey=True, width_ratios=(1, 1.5))
        for at, row in enumerate(shown):
            good = row["cav_p"] < 0.05
            quality.barh(at, row["cav_auc"] - 0.5, left=0.5, height=0.65, color=BLUE,
                         alpha=0.85 if good else 0.3, lw=0)  # fmt: skip
            _dots(null, row["null_alignments"], at, GREY, 0.25)
            _dots(null, row["alignments"], at, ORANGE if row["significant"] else BLUE, 0.7)
        cosines = [row["pattern_cosine"] for row in shown]
        quality.plot(cosines, y, "o", color="black", markersize=2.5)
        quality.axvline(0.5, color="0.5", linewidth=0.7)
        quality.set(xlabel="AUC; dot: cosine with the pattern", xlim=(0.3, 1.02))
        quality.set_title("CAVs on held-out clips")
        quality.set_yticks(y, [row["concept"] for row in shown])
        null.axvline(0, color="0.5", linewidth=0.7)
        null.set(xlabel="alignment: mean cosine of CAV and gradient")
        null.set_title(
            f"{shown[0]['n_random_sets']} random sets; grey: random against random\n"
            "orange: significant after both tests, blue: not"
        )
        for at, row in enumerate(shown):
            null.text(1.01, at, row["genre"], transform=null.get_yaxis_transform(), va="center",
                      fontsize=7, color="0.3")  # fmt: skip
        for axes in (quality, null):
            axes.tick_params(axis="y", length=0)
            axes.set_ylim(-0.6, len(shown) - 0.4)
            axes.grid(axis="x", color="0.92")
            axes.set_axisbelow(True)
        figure.suptitle(f"layer {layer}", x=0.01, ha="left", fontsize=8)


def _dots(axes, values: list[float], at: int, colour: str, alpha: float) -> None:
    """Draw values as dots about a line, spread by their order so that equal bytes come again."""
    spread = at + 0.24 * np.sin(7.0 * np.arange(len(values)))
    axes.scatter(values, spread, s=5, color=colour, alpha=alpha, lw=0)
