"""The report's figures, each as PNG and SVG; equal inputs give equal bytes."""

from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import TwoSlopeNorm
from matplotlib.patches import Rectangle
from matplotlib.patheffects import withStroke

from conceptcaps.figurestyle import (
    BLUE,
    COLOUR_OF,
    GREY,
    WIDTH,
    drawing,
)
from conceptcaps.io import read_json, read_rows

# The text metrics that are drawn: all of them are in scores/text.json, and would fill two pages.
SHOWN = {
    "bleu4": "BLEU-4 (%)",
    "rougeL": "ROUGE-L",
    "bertscore_f1": "BERTScore F1",
    "mauve": "MAUVE",
    "tag_recall": "tag recall",
    "tag_precision": "tag precision",
    "all_tags": "share naming all tags",
    "self_bleu": "self-BLEU (%)",
    "words": "words per caption",
}


def _name(arm: str) -> str:
    return arm.replace("_", " ")


def plot_text(*, scores: str | Path, output) -> None:
    """Draw the text metrics of `SHOWN` of every arm with their 95 % intervals, a panel each.

    Args:
        scores: JSON file {"arms": {arm: [metric as `results.MetricResult`, ...]}}.
        output: object with the paths `png` and `svg`.
    """
    arms = read_json(scores)["arms"]
    by_metric: dict[str, dict[str, dict]] = {}
    for arm, metrics in arms.items():
        for metric in metrics:
            if metric["name"] in SHOWN:
                by_metric.setdefault(metric["name"], {})[arm] = metric
    names = [*COLOUR_OF, *sorted(set(arms) - set(COLOUR_OF))]
    order = [arm for arm in names if arm in arms][::-1]
    columns = 3
    lines = -(-len(by_metric) // columns)
    with drawing(output, height=0.3 + lines * (0.75 + 0.17 * len(order))) as figure:
        grid = figure.subplots(lines, columns, squeeze=False, sharey=True).flatten()
        for axes, (name, of_arm) in zip(grid, by_metric.items(), strict=False):
            _metric_panel(axes, name, of_arm, order)
        for axes in grid[len(by_metric) :]:
            axes.set_visible(False)
        figure.supxlabel("value with 95 % interval; grey: floors and ceilings", fontsize=8)


def _metric_panel(axes: Axes, name: str, of_arm: dict[str, dict], order: list[str]) -> None:
    for y, arm in enumerate(order):
        if arm not in of_arm:
            axes.text(0.02, y, "not defined", transform=axes.get_yaxis_transform(), color=GREY,
                      va="center", fontsize=7)  # fmt: skip
            continue
        metric, colour = of_arm[arm], COLOUR_OF.get(arm, GREY)
        if metric["ci_low"] is not None:
            axes.hlines(y, metric["ci_low"], metric["ci_high"], color=colour, linewidth=2)
        axes.plot(metric["value"], y, "o" if arm in COLOUR_OF else "d", color=colour, markersize=4)
    direction = {metric["direction"] for metric in of_arm.values()}.pop()
    better = {"higher": "higher is better, ", "lower": "lower is better, "}.get(direction, "")
    texts = _range([metric["n"] for metric in of_arm.values()])
    shaky = any(metric["recipe"].get("reliability") == "unreliable" for metric in of_arm.values())
    note = " (N < 1,000: unreliable)" if shaky else ""
    axes.set_title(f"{SHOWN[name]}{note}\n{better}N = {texts}")
    axes.set_yticks(range(len(order)), [_name(arm) for arm in order])
    axes.set_ylim(-0.6, len(order) - 0.4)
    axes.margins(x=0.12)
    axes.locator_params(axis="x", nbins=4)
    axes.tick_params(axis="y", length=0)
    axes.grid(axis="x", color="0.92")
    axes.set_axisbelow(True)


def plot_genrecnn(*, metrics: str | Path, output) -> None:
    """Draw the classifier's confusion matrix and reliability on held-out clips.

    Args:
        metrics: metrics.json of fit_genrecnn.
        output: object with the paths `png` and `svg`.
    """
    report = read_json(metrics)
    of_name = {metric["name"]: metric for metric in report["metrics"]}
    with drawing(output, height=3.6) as figure:
        confusion, calibration = figure.subplots(1, 2, width_ratios=(1.25, 1))
        _confusion_panel(confusion, report, of_name["clip_accuracy"])
        _reliability_panel(
            calibration,
            report["reliability"],
            of_name["expected_calibration_error"],
            of_name["calibration_error_null"],
        )


def _confusion_panel(axes: Axes, report: dict, accuracy: dict) -> None:
    counts = np.array(report["confusion"])
    shares = counts / np.maximum(1, counts.sum(axis=1, keepdims=True))
    axes.imshow(100 * shares, cmap="Blues", vmin=0, vmax=100)
    for i, j in zip(*np.nonzero(counts), strict=True):
        shade = "white" if shares[i, j] > 0.55 else "black"
        axes.text(j, i, counts[i, j], ha="center", va="center", color=shade, fontsize=7)
    classes = report["classes"]
    axes.set_xticks(range(len(classes)), classes, rotation=45, ha="right", rotation_mode="anchor")
    axes.set_yticks(range(len(classes)), classes)
    axes.tick_params(length=0)
    axes.set(xlabel="predicted genre; numbers are clips", ylabel="true genre")
    axes.set_title(
        f"Held-out clips (N = {accuracy['n']:,}): accuracy {accuracy['value']:.2f} "
        f"[{accuracy['ci_low']:.2f}, {accuracy['ci_high']:.2f}]"
    )
    axes.spines[:].set_visible(False)


def _reliability_panel(axes: Axes, bins: list[dict], error: dict, null: dict) -> None:
    """Draw accuracy against mean confidence of each bin; the size of a dot is its clips."""
    axes.plot([0, 1], [0, 1], color="0.6", linewidth=0.8)
    most = max(row["n"] for row in bins)
    for row in bins:
        axes.vlines(row["confidence"], row["accuracy"], row["confidence"], color="0.75", lw=1.2)
        axes.plot(
            row["confidence"], row["accuracy"], "o", color=BLUE, ms=3 + 8 * np.sqrt(row["n"] / most)
        )
        axes.annotate(row["n"], (row["confidence"], row["accuracy"]), (7, -7),
                      textcoords="offset points", fontsize=7, color="0.3",
                      path_effects=[withStroke(linewidth=2, foreground="white")])  # fmt: skip
    axes.set(xlim=(0, 1.1), ylim=(-0.08, 1.05), xlabel="confidence", ylabel="accuracy")
    axes.set_aspect("equal")
    axes.grid(color="0.92")
    axes.set_axisbelow(True)
    axes.set_title(
        f"Calibration error {error['value']:.2f};\n{null['value']:.2f} "
        f"[{null['ci_low']:.2f}, {null['ci_high']:.2f}] if it were calibrated"
    )


def plot_tcav(*, scores: str | Path, output) -> None:
    """Draw the TCAV scores of concept x genre per layer; controls below, insignificant hatched.

    Args:
        scores: table `schemas.TCAV`.
        output: object with the paths `png` and `svg`.
    """
    rows = read_rows(scores)
    layers = list(dict.fromkeys(row["layer"] for row in rows))
    genres = sorted({row["genre"] for row in rows})
    concepts = list(dict.fromkeys(row["concept"] for row in rows if not row["control"]))
    controls = list(dict.fromkeys(row["concept"] for row in rows if row["control"]))
    tests = sum(not row["control"] for row in rows)
    found = sum(row["significant"] for row in rows if not row["control"])
    height, width = 2.1 + 0.2 * (len(concepts) + len(controls)), min(WIDTH, 3.4 + 2 * len(layers))
    ratios = (len(concepts), len(controls))
    with drawing(output, height=height, width=width) as figure:
        grid = figure.subplots(
            2, len(layers), squeeze=False, height_ratios=ratios, sharex=True, sharey="row"
        )
        for column, layer in zip(grid.T, layers, strict=True):
            of_layer = [row for row in rows if row["layer"] == layer]
            _tcav_panel(
                column[0], [row for row in of_layer if not row["control"]], concepts, genres
            )
            controlled = [row for row in of_layer if row["control"]]
            image = _tcav_panel(column[1], controlled, controls, genres)
            column[0].set_title(f"layer {layer}")
            column[1].set_title("controls", fontsize=8)
            column[1].set_xlabel("genre")
            column[1].tick_params(axis="x", rotation=45)
            for label in column[1].get_xticklabels():
                label.set(ha="right", rotation_mode="anchor")
        bar = figure.colorbar(image, ax=grid, shrink=0.6, label="TCAV score (0.5: no direction)")
        bar.outline.set_visible(False)
        clips = _range([row["n_class"] for row in rows])
        title = (
            f"{found} of {tests:,} tests significant; {rows[0]['n_random_sets']} random sets; "
            f"N = {clips} clips per genre\n"
            "pale and hatched: not significant (both tests); beside the rows: AUC of the CAV"
        )
        figure.suptitle(title, x=0.01, ha="left", fontsize=8)


def _range(counts: list[int]) -> str:
    low, high = min(counts), max(counts)
    return f"{low:,}" if low == high else f"{low:,} to {high:,}"


def _tcav_panel(axes: Axes, rows: list[dict], concepts: list[str], genres: list[str]):
    table = np.full((len(concepts), len(genres)), np.nan)
    for row in rows:
        i, j = concepts.index(row["concept"]), genres.index(row["genre"])
        table[i, j] = row["tcav"]
        if not row["significant"]:
            veil = Rectangle((j - 0.5, i - 0.5), 1, 1, hatch="/////", facecolor=(1, 1, 1, 0.6))
            veil.set(edgecolor="0.6", linewidth=0)
            axes.add_patch(veil)
    norm = TwoSlopeNorm(0.5, vmin=0, vmax=1)
    image = axes.imshow(table, cmap="PuOr_r", norm=norm, aspect="auto", interpolation="nearest")
    for i, concept in enumerate(concepts):
        auc = np.mean([row["cav_auc"] for row in rows if row["concept"] == concept])
        axes.text(len(genres) - 0.3, i, f"{auc:.2f}", va="center", fontsize=7, color="0.3")
    axes.set_yticks(range(len(concepts)), concepts)
    axes.set_xticks(range(len(genres)), genres)
    axes.tick_params(length=0)
    axes.spines[:].set_visible(False)
    return image
