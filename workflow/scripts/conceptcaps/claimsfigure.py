"""The scorecard as a picture: the paper's numbers beside the run's, where both have a scale."""

import textwrap
from pathlib import Path

from conceptcaps.figurestyle import BLUE, ORANGE, WIDTH, drawing
from conceptcaps.io import read_json

_LOOKS = (("protocol", 0.2, ORANGE, "s"), ("right", -0.2, BLUE, "o"))
_ROW = 0.22  # inches of height a claim


def plot_claims(*, scorecard: str | Path, output) -> None:
    """Draw the claims whose figures lie from 0 to 1 in one panel, with 95 % intervals.

    Left out are claims without a number in the paper, counts, percentages, and what was not run:
    the title says how many. Open marks stand for figures that cannot be held against the paper's.

    Args:
        scorecard: JSON file of `conceptcaps.scorecard.write`.
        output: object with the paths `png` and `svg`.
    """
    claims = read_json(scorecard)["claims"]
    shown = [claim for claim in claims if _on_scale(claim)][::-1]
    with drawing(output, height=1.1 + _ROW * len(shown), width=WIDTH) as figure:
        axes = figure.subplots()
        for y, claim in enumerate(shown):
            axes.plot(claim["paper"], y, "D", color="black", ms=4, zorder=3)
            for side, offset, colour, mark in _LOOKS:
                found = claim[side]
                if "value" not in found:
                    continue
                if found["ci_low"] is not None:
                    axes.hlines(y + offset, max(0, found["ci_low"]), min(1, found["ci_high"]),
                                color=colour, linewidth=1.4)  # fmt: skip
                fill = "white" if claim["unlike"] else colour
                axes.plot(found["value"], y + offset, mark, color=colour, mfc=fill, ms=4)
        axes.plot([], [], "D", color="black", ms=4, label="paper")
        axes.plot([], [], "s", color=ORANGE, ms=4, label="this run, by the paper's protocol")
        axes.plot([], [], "o", color=BLUE, ms=4, label="by ours: may be another quantity")
        names = [f"{claim['where']}: {claim['claim']}" for claim in shown]
        axes.set_yticks(range(len(shown)), [textwrap.shorten(name, 72) for name in names])
        axes.set(xlim=(-0.02, 1.02), ylim=(-0.6, len(shown) - 0.4), xlabel="value (no unit)")
        axes.tick_params(axis="y", length=0, labelsize=7)
        axes.grid(axis="x", color="0.92")
        axes.set_axisbelow(True)
        figure.suptitle(f"{len(shown)} of {len(claims)} claims have figures from 0 to 1",
                        x=0.01, ha="left", fontsize=9)  # fmt: skip
        figure.legend(loc="outside lower center", ncols=3)


def _on_scale(claim: dict) -> bool:
    """Say whether the paper's number and at least one of ours lie from 0 to 1."""
    ours = [claim[side]["value"] for side in ("protocol", "right") if "value" in claim[side]]
    if claim["paper"] is None or not ours:
        return False
    return all(0 <= value <= 1 for value in [claim["paper"], *ours])
