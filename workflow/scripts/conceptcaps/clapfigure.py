"""The figure of the CLAP scores, the paper's Figure 5: other datasets left, other models right."""

from pathlib import Path

import numpy as np
from matplotlib.axes import Axes

from conceptcaps.figurestyle import COLOUR_OF, GREY, drawing
from conceptcaps.io import read_json

DATASETS = ("conceptcaps", "musiccaps", "lp_musiccaps_")  # begin the arms left, if scored
MODELS = ("conceptcaps", "base", "zero_shot")  # right
SHUFFLED = "captions shuffled"


def plot_clap(*, scores: str | Path, output) -> None:
    """Draw the distribution of CLAP scores of each arm, its mean and the mean's 95 % interval.

    Left, the dataset beside other datasets and, in grey, beside its own clips with shuffled
    captions; right, the dataset's captions beside those of other language models, with the verdict
    of the paired test against the dataset.

    Args:
        scores: JSON file of `agreement.summarise`.
        output: object with the paths `png` and `svg`.
    """
    summary = read_json(scores)
    of = {arm: {m["name"]: m for m in metrics} for arm, metrics in summary["arms"].items()}
    first = next(iter(summary["order"]))
    means = {arm: of[arm]["clap_score"] for arm in summary["order"]}
    means[SHUFFLED] = of[first]["clap_shuffled"]
    edges = np.array(summary["distributions"]["edges"])
    shares = {
        arm: np.array(counts) / sum(counts)
        for arm, counts in summary["distributions"]["clips"].items()
    }
    left = [first, *(arm for arm in of if arm.startswith(DATASETS) and arm != first), SHUFFLED]
    right = [arm for arm in summary["order"] if arm in MODELS or arm not in left]
    verdicts = {row["against"]: row for row in summary["comparisons"] if row["arm"] == first}
    highest = max(share.max() for share in shares.values())
    with drawing(output, height=1.1 + 0.7 * max(len(left), len(right))) as figure:
        panels = figure.subplots(1, 2, sharex=True)
        titles = ("The dataset and others", "What wrote the captions")
        for axes, arms, title in zip(panels, (left, right), titles, strict=True):
            for y, arm in enumerate(reversed(arms)):
                _ridge(axes, y, shares[arm] / highest, means[arm], edges, COLOUR_OF.get(arm, GREY))
            told = verdicts if axes is panels[1] else {}
            labels = [_label(arm, means[arm]["n"], told.get(arm), first) for arm in reversed(arms)]
            axes.set_yticks(range(len(arms)), labels)
            axes.set_ylim(-0.45, len(arms) - 0.05)
            axes.tick_params(axis="y", length=0)
            axes.grid(axis="x", color="0.92")
            axes.set_axisbelow(True)
            axes.set_title(title)
        failed = [gate["name"] for gate in summary["gates"] if not gate["holds"]]
        note = f"; gates that fail: {', '.join(failed)}" if failed else ""
        figure.supxlabel(f"CLAP score: cosine of caption and clip{note}", fontsize=8)


def _ridge(axes: Axes, y: int, heights, mean: dict, edges, colour: str) -> None:
    centres = (edges[1:] + edges[:-1]) / 2
    axes.fill_between(centres, y, y + 0.75 * heights, step="mid", color=colour, alpha=0.35, lw=0)
    axes.hlines(y, mean["ci_low"], mean["ci_high"], color=colour, linewidth=3)
    axes.plot(mean["value"], y, "o", color=colour, markersize=4)
    side = "right" if mean["value"] > centres.mean() else "left"
    axes.annotate(f"{mean['value']:.3f} [{mean['ci_low']:.3f}, {mean['ci_high']:.3f}]",
                  (edges[-1 if side == "right" else 0], y), (0, -4), va="top", ha=side,
                  textcoords="offset points", fontsize=7)  # fmt: skip


def _label(arm: str, n: int, verdict: dict | None, first: str) -> str:
    label = f"{arm.replace('_', ' ')}\nN = {n:,}"
    if verdict is None:
        return label
    said = {"higher": f"below {first}", "lower": f"above {first}"}.get(verdict["verdict"])
    return f"{label}\n{said or verdict['verdict']}"
