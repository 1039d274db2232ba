"""How well the dataset covers the taxonomy: clips of every tag, and what the tag is met with."""

from collections import Counter
from pathlib import Path

import numpy as np
import pyarrow as pa

from conceptcaps.build import USABLE_CLIPS
from conceptcaps.categories import TAGS_OF
from conceptcaps.figurestyle import BLUE, GREY, ORANGE, PINK, WIDTH, drawing
from conceptcaps.io import read_json, read_table
from conceptcaps.leakage import SPLITS

SPLIT_COLOURS = dict(zip(SPLITS, (BLUE, ORANGE, PINK), strict=True))
_ROW = 0.145  # inches of height a tag
_FOOT = 0.55  # inches of legend and scale
_HEAD = 0.95  # inches of a panel's title, axis and labels


def plot_coverage(*, dataset: str | Path, taxonomy: str | Path, output) -> None:
    """Draw, per category, the clips of every tag by split and the tags that it is met with.

    Args:
        dataset: table `schemas.DATASET`.
        taxonomy: JSON file {category: [tag, ...]}; tags without clips are drawn, too.
        output: object with the paths `png` and `svg`.
    """
    table = read_table(dataset, [*TAGS_OF.values(), "split"])
    tags = {category: list(found) for category, found in read_json(taxonomy).items()}
    counts = {split: clips_of(table, split) for split in SPLITS}
    met = companions(table)
    order = {
        category: sorted(found, key=lambda tag: (sum(c[tag] for c in counts.values()), tag))
        for category, found in tags.items()
    }
    rows = [max(len(order[c]) for c in pair) for pair in _pairs(list(order))]
    heights = [_HEAD + _ROW * n for n in rows]
    with drawing(output, height=_FOOT + sum(heights), width=WIDTH) as figure:
        body, foot = figure.subfigures(2, 1, height_ratios=(sum(heights), _FOOT))
        grid = body.subfigures(len(rows), 2, height_ratios=heights, squeeze=False)
        most = max(sum(c[tag] for c in counts.values()) for found in tags.values() for tag in found)
        for panel, (category, names) in zip(grid.flatten(), order.items(), strict=False):
            bars, cells = panel.subplots(1, 2, width_ratios=(1, 0.55), sharey=True)
            _bars(bars, names, counts, most)
            image = _cells(cells, names, met, tags)
            panel.suptitle(_title(category, names, counts), x=0.02, ha="left", fontsize=8)
        legend, scale = foot.subplots(1, 2)
        legend.set_axis_off()
        legend.legend(*bars.get_legend_handles_labels(), loc="center", ncols=4, fontsize=7)
        bar = foot.colorbar(image, cax=scale, orientation="horizontal")
        bar.set_label("a category's other tags that the tag is met with (%)")
        bar.outline.set_visible(False)


def _pairs(names: list[str]) -> list[list[str]]:
    return [names[i : i + 2] for i in range(0, len(names), 2)]


def clips_of(table: pa.Table, split: str) -> Counter:
    """Return {tag: clips of a split that have it}."""
    rows = table.select([*TAGS_OF.values(), "split"]).to_pylist()
    return Counter(
        tag
        for row in rows
        if row["split"] == split
        for column in TAGS_OF.values()
        for tag in row[column]
    )


def companions(table: pa.Table) -> dict[str, dict[str, set[str]]]:
    """Return {tag: {category: the tags of that category that some clip has together with it}}."""
    found: dict[str, dict[str, set[str]]] = {}
    for row in table.select(list(TAGS_OF.values())).to_pylist():
        present = {category: row[column] for category, column in TAGS_OF.items()}
        for tags in present.values():
            for tag in tags:
                of_tag = found.setdefault(tag, {category: set() for category in TAGS_OF})
                for category, others in present.items():
                    of_tag[category].update(other for other in others if other != tag)
    return found


def _bars(axes, names: list[str], counts: dict[str, Counter], most: int) -> None:
    """Draw the clips of every tag, the splits one behind the other."""
    y, left = np.arange(len(names)), np.zeros(len(names))
    for split, colour in SPLIT_COLOURS.items():
        widths = np.array([counts[split][tag] for tag in names])
        axes.barh(y, widths, left=left, height=0.72, color=colour, label=split, lw=0)
        left += widths
    if most >= USABLE_CLIPS:
        axes.axvline(USABLE_CLIPS, color=GREY, linewidth=0.8, linestyle="--",
                     label=f"{USABLE_CLIPS} clips")  # fmt: skip
    axes.set_yticks(y, names, fontsize=7)
    axes.set_ylim(-0.6, len(names) - 0.4)
    axes.set_xlim(0, 1.03 * most)
    axes.tick_params(axis="y", length=0)
    axes.locator_params(axis="x", nbins=4)
    axes.set_xlabel("clips")


def _cells(axes, names: list[str], met: dict, tags: dict[str, list[str]]):
    """Draw, tag by category, the share of the category's other tags that the tag is met with."""
    shares = np.zeros((len(names), len(tags)))
    for i, tag in enumerate(names):
        for j, (category, known) in enumerate(tags.items()):
            others = set(known) - {tag}
            shares[i, j] = len(met.get(tag, {}).get(category, set()) & others) / max(1, len(others))
    image = axes.imshow(100 * shares, aspect="auto", cmap="cividis", vmin=0, vmax=100,
                        interpolation="nearest")  # fmt: skip
    axes.set_xticks(range(len(tags)), tags, rotation=45, ha="right", rotation_mode="anchor")
    axes.tick_params(length=0)
    axes.spines[:].set_visible(False)
    return image


def _title(category: str, names: list[str], counts: dict[str, Counter]) -> str:
    totals = [sum(of_split[tag] for of_split in counts.values()) for tag in names]
    usable = sum(total >= USABLE_CLIPS for total in totals)
    return f"{category}: {usable} of {len(names)} tags have {USABLE_CLIPS} clips or more"
