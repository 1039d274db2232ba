"""The figure of the CLAP scores, the paper's Figure 5: other datasets left, other models right."""

from pathlib import Path

import numpy as np
from matplotlib.axes import Axes

from conceptcaps import agreement
from conceptcaps.figurestyle import COLOUR_OF, GREY, drawing
from conceptcaps.io import read_json

DATASETS = ("conceptcaps", "musiccaps", "lp_musiccaps")  # left, those of them that were scored
MODELS = ("conceptcaps", "base", "zero_shot")  # right
SHUFFLED = "captions shuffled"
_BINS = 40


def plot_clap(*, shards: dict[str, list[str | Path]], scores: str | Path, output) -> None:
    """Draw the distribution of CLAP scores of each arm, its mean and the mean's 95 % interval.

    Left, the dataset beside other datasets and, in grey, beside its own clips with shuffled
    captions; right, the dataset's captions beside those of other language models, with the verdict
    of the paired test against the dataset.

    Args:
        shards: {arm: tables `schemas.CLAP`}.
        scores: JSON file of `agreement.summarise` over the same tables.
        output: object with the paths `png` and `svg`.

    Raises:
        InputError: an arm has fewer than 2 clips.
    """
    summary = read_json(scores)
    tables = {arm: agreement.read_scored(arm, paths) for arm, paths in shards.items()}
    values = {
        arm: np.einsum("nd,nd->n", table["audio"], table["text"]) for arm, table in tables.items()
    }
    of = {arm: {m["name"]: m for m in metrics} for arm, metrics in summary["arms"].items()}
    means = {arm: metrics["clap_score"] for arm, metrics in of.items()}
    first = next(iter(tables))
    seed = means[first]["recipe"]["seed"]
    values[SHUFFLED] = agreement.shuffled_scores(tables[first], seed=seed, arm=first)
    means[SHUFFLED] = of[first]["clap_shuffled"]
    left = [first, *(arm for arm in DATASETS if arm in tables and arm != first), SHUFFLED]
    right = [arm for arm in tables if arm in MODELS or arm not in left]
    everything = np.concatenate(list(values.values()))
    edges = np.linspace(everything.min() - 1e-3, everything.max() + 1e-3, _BINS + 1)
    highest = max(np.histogram(x, edges)[0].max() / len(x) for x in values.values())
    with drawing(output, height=1.2 + 0.62 * max(len(left), len(right))) as figure:
        panels = figure.subplots(1, 2, sharex=True)
        titles = ("The dataset and others", "What wrote the captions")
        for axes, arms, title in zip(panels, (left, right), titles, strict=True):
            for y, arm in enumerate(reversed(arms)):
                _ridge(axes, y, values[arm], means[arm], edges, highest, COLOUR_OF.get(arm, GREY))
            axes.set_yticks(
                range(len(arms)), [_label(arm, len(values[arm])) for arm in reversed(arms)]
            )
            axes.set_ylim(-0.45, len(arms) - 0.05)
            axes.tick_params(axis="y", length=0)
            axes.grid(axis="x", color="0.92")
            axes.set_axisbelow(True)
            axes.set_title(title)
        verdicts = {row["against"]: row for row in summary["comparisons"] if row["arm"] == first}
        for y, arm in enumerate(reversed(right)):
            if arm in verdicts:
                panels[1].text(0.99, y + 0.62, _said(verdicts[arm], first), fontsize=6.5,
                               transform=panels[1].get_yaxis_transform(), ha="right")  # fmt: skip
        failed = [gate["name"] for gate in summary["gates"] if not gate["holds"]]
        note = f"; gates that fail: {', '.join(failed)}" if failed else ""
        figure.supxlabel(f"CLAP score: cosine of caption and clip{note}", fontsize=8)


def _ridge(axes: Axes, y: int, values, mean: dict, edges, highest: float, colour: str) -> None:
    density = np.histogram(values, edges)[0] / len(values) / highest
    centres = (edges[1:] + edges[:-1]) / 2
    axes.fill_between(centres, y, y + 0.8 * density, step="mid", color=colour, alpha=0.35, lw=0)
    axes.hlines(y, mean["ci_low"], mean["ci_high"], color=colour, linewidth=3)
    axes.plot(mean["value"], y, "o", color=colour, markersize=4)
    axes.annotate(f"{mean['value']:.3f} [{mean['ci_low']:.3f}, {mean['ci_high']:.3f}]",
                  (mean["value"], y), (0, -4), va="top", ha="center",
                  textcoords="offset points", fontsize=6.5)  # fmt: skip


def _label(arm: str, n: int) -> str:
    return f"{arm.replace('_', ' ')}\nN = {n:,}"


def _said(row: dict, first: str) -> str:
    verdict = {"higher": "lower than", "lower": "higher than"}.get(row["verdict"])
    if verdict is None:
        return row["verdict"]
    return f"{verdict} {first} by {abs(row['difference']):.3f}, n = {row['n']:,}"
