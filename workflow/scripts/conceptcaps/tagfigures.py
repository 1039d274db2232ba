"""The figures of the tags and of the model that samples them, each as PNG and SVG."""

from collections import Counter
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.patheffects import withStroke
from matplotlib.ticker import LogLocator, MaxNLocator
from sklearn.manifold import TSNE

from conceptcaps.categories import CATEGORIES, TAGS_OF
from conceptcaps.figurestyle import (
    BLUE,
    CATEGORY_COLOURS,
    CATEGORY_MARKERS,
    COLUMN,
    GREEN,
    GREY,
    ORANGE,
    PINK,
    drawing,
)
from conceptcaps.io import read_rows
from conceptcaps.taxonomy import load_lookup, load_taxonomy, normalise

TOP_TAGS = 24  # shown by name
MAP_ROWS, MAP_STEPS = 1000, 500  # pairs of the latent map, at most; steps of t-SNE
GENRES = 7  # of the latent map, the most frequent ones
SKY, RED, BLACK = "#56B4E9", "#D55E00", "#000000"  # the rest of Okabe and Ito's palette
GENRE_LOOKS = list(zip((BLUE, ORANGE, GREEN, PINK, RED, SKY, BLACK), "o^sDvPX", strict=True))


def plot_tags(*, clips: str | Path, pairs: str | Path, tags: str | Path, output) -> None:
    """Draw the tags' frequencies and the tags per set: distilled pairs against samples.

    Args:
        clips: table `schemas.CLIPS`, for the number of raw aspects.
        pairs: table `schemas.PAIRS`.
        tags: table `schemas.TAGS`.
        output: object with the paths `png` and `svg`.
    """
    columns = ["aspect_list", *TAGS_OF.values()]
    pair_rows, tag_rows = read_rows(pairs, columns), read_rows(tags, columns)
    aspects = [len(row["aspect_list"]) for row in read_rows(clips, ["aspect_list"])]
    category_of = {
        tag: category
        for row in [*pair_rows, *tag_rows]
        for category, column in TAGS_OF.items()
        for tag in row[column]
    }
    distilled, sampled = _shares(pair_rows), _shares(tag_rows)
    with drawing(output, height=5.2) as figure:
        left, right = figure.subfigures(1, 2, width_ratios=(1.0, 1.05))
        _dumbbells(left.subplots(), distilled, sampled)
        scatter, histogram = right.subplots(2, 1, height_ratios=(1.25, 1))
        _scatter(scatter, distilled, sampled, category_of)
        _tags_per_set(
            histogram,
            {
                f"sampled (N = {len(tag_rows):,})": ([_size(row) for row in tag_rows], ORANGE),
                f"distilled (N = {len(pair_rows):,})": ([_size(row) for row in pair_rows], BLUE),
                f"MusicCaps, all aspects (N = {len(aspects):,})": (aspects, GREY),
            },
        )


def _shares(rows: list[dict]) -> Counter:
    counts = Counter(tag for row in rows for column in TAGS_OF.values() for tag in row[column])
    return Counter({tag: count / len(rows) for tag, count in counts.items()})


def _size(row: dict) -> int:
    return sum(len(row[column]) for column in TAGS_OF.values())


def _dumbbells(axes: Axes, distilled: Counter, sampled: Counter) -> None:
    top = [tag for tag, _ in sorted(distilled.items(), key=lambda item: (-item[1], item[0]))]
    top = top[:TOP_TAGS][::-1]
    y = np.arange(len(top))
    first, second = [100 * distilled[tag] for tag in top], [100 * sampled[tag] for tag in top]
    axes.hlines(y, first, second, color="0.75", linewidth=1.2, zorder=1)
    axes.scatter(first, y, s=22, color=BLUE, label="distilled", zorder=2)
    axes.scatter(second, y, s=22, color=ORANGE, marker="D", label="sampled", zorder=2)
    axes.set_yticks(y, top)
    axes.tick_params(axis="y", length=0)
    axes.set(xlabel="share of tag sets (%)", title=f"The {len(top)} most frequent tags")
    axes.set_xlim(left=0)
    axes.set_ylim(-0.7, len(top) - 0.3)
    axes.grid(axis="x", color="0.92")
    axes.set_axisbelow(True)
    axes.legend(loc="lower right")


def _scatter(axes: Axes, distilled: Counter, sampled: Counter, category_of: dict) -> None:
    """Draw every tag's share among distilled sets against that among samples, on log axes."""
    positive = [share for shares in (distilled, sampled) for share in shares.values()]
    floor = 100 * min(positive) / 2  # where tags that never occur are drawn
    for category, colour in CATEGORY_COLOURS.items():
        tags = sorted(tag for tag in category_of if category_of[tag] == category)
        x = [max(floor, 100 * distilled[tag]) for tag in tags]
        y = [max(floor, 100 * sampled[tag]) for tag in tags]
        marker = CATEGORY_MARKERS[category]
        axes.scatter(x, y, s=14, color=colour, marker=marker, alpha=0.8, lw=0, label=category)
    ends = (floor * 0.8, 125 * max(positive))
    axes.plot(ends, ends, color="0.6", linewidth=0.8, zorder=0)
    axes.set(xscale="log", yscale="log", xlim=ends, ylim=ends)
    for axis in (axes.xaxis, axes.yaxis):
        axis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        axis.set_major_formatter("{x:g}")
        axis.set_minor_formatter("")
    axes.set(xlabel="distilled (% of sets)", ylabel="sampled (% of sets)")
    axes.set_title(f"All {len(category_of)} tags; the line is equality")
    axes.legend(loc="upper left", handletextpad=0.1, borderpad=0)


def _tags_per_set(axes: Axes, series: dict[str, tuple[list[int], str]]) -> None:
    most = max(max(counts, default=0) for counts, _ in series.values())
    edges = np.arange(0, min(most, 25) + 2) - 0.5
    for label, (counts, colour) in series.items():
        shares, _ = np.histogram(np.minimum(counts, 25), edges)
        filled = colour == ORANGE
        axes.stairs(
            100 * shares / max(1, len(counts)),
            edges,
            fill=filled,
            color=colour,
            alpha=0.45 if filled else 1,
            linewidth=1.4,
            label=label,
        )
    axes.set(xlabel="tags per set (25: or more)" if most > 25 else "tags per set")
    axes.set(ylabel="share of sets (%)", title="Tags per set")
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.margins(y=0.65)  # room for the legend
    axes.set_ylim(bottom=0)
    axes.legend(loc="upper right", borderpad=0)


def plot_vae(*, history: str | Path, output) -> None:
    """Draw the VAE's losses and held-out Jaccard index per epoch (table `schemas.VAE_HISTORY`)."""
    rows = read_rows(history)
    epochs = [row["epoch"] for row in rows]
    best = max(rows, key=lambda row: row["heldout_jaccard"])
    with drawing(output, height=2.5) as figure:
        loss, jaccard = figure.subplots(1, 2)
        loss.plot(epochs, [row["train_loss"] for row in rows], color=BLUE, label="training")
        held_out = [row["heldout_loss"] for row in rows]
        loss.plot(epochs, held_out, color=ORANGE, linestyle="--", label="held-out")
        loss.set(xlabel="epoch", ylabel="loss (nats per tag set)")
        loss.set_title(f"Loss over {len(rows)} epochs")
        loss.legend()
        jaccard.plot(epochs, [row["heldout_jaccard"] for row in rows], color=ORANGE, linestyle="--")
        jaccard.set(xlabel="epoch", ylabel="Jaccard index, held-out", ylim=(0, 1))
        jaccard.set_title(
            f"Reconstruction; best {best['heldout_jaccard']:.3f}, epoch {best['epoch']}"
        )
        for axes in (loss, jaccard):
            axes.grid(color="0.92")


def plot_distill(
    *, clips: str | Path, pairs: str | Path, tags: str | Path, taxonomy_file: str | Path, output
) -> None:
    """Draw what distillation does to MusicCaps, at column width (paper figures 3 and 4).

    From above: how frequent labels are, by rank; labels per sample; tags of each category per
    sample, before and after; words per caption.

    Args:
        clips: table `schemas.CLIPS`.
        pairs: table `schemas.PAIRS`.
        tags: table `schemas.TAGS`.
        taxonomy_file: the taxonomy, which says what the aspects of a clip name.
        output: object with the paths `png` and `svg`.
    """
    raw = read_rows(clips, ["aspect_list", "caption"])
    kept = read_rows(pairs, ["aspect_list", "caption", *TAGS_OF.values()])
    drawn = read_rows(tags, ["aspect_list"])
    named = f"MusicCaps ({len(raw):,} clips)", f"distilled ({len(kept):,} pairs)"
    aspects = [list(dict.fromkeys(map(normalise, row["aspect_list"]))) for row in raw]
    with drawing(output, height=8.4, width=COLUMN) as figure:
        rank, labels, categories, words = figure.subplots(4, 1)
        for label, rows, colour, dashes in (
            (f"MusicCaps, {_distinct(aspects):,} aspects", aspects, GREY, "-"),
            (f"distilled, {_distinct(_sets(kept)):,} tags", _sets(kept), BLUE, "-"),
            (f"sampled, {_distinct(_sets(drawn)):,} tags", _sets(drawn), ORANGE, "--"),
        ):
            shares = sorted(Counter(tag for row in rows for tag in row).values(), reverse=True)
            shares = 100 * np.array(shares) / max(1, len(rows))
            rank.plot(np.arange(1, len(shares) + 1), shares, dashes, color=colour, label=label)
        rank.set(xscale="log", yscale="log", xlabel="rank of the label")
        rank.set(ylabel="share of samples (%)", title="How frequent labels are")
        for axis in (rank.xaxis, rank.yaxis):
            low, high = axis.get_view_interval()
            axis.set_major_locator(LogLocator(subs=(1,) if high > 200 * low else (1, 2, 5)))
            axis.set_major_formatter("{x:g}")
            axis.set_minor_formatter("")
        rank.legend(loc="lower left", borderpad=0, handlelength=1.2, fontsize=7)
        _tags_per_set(
            labels,
            {
                "sampled": ([len(row) for row in _sets(drawn)], ORANGE),
                "distilled": ([len(row) for row in _sets(kept)], BLUE),
                "MusicCaps, aspects": ([len(row) for row in aspects], GREY),
            },
        )
        labels.set(title="Labels per sample", ylabel="share of samples (%)")
        labels.set_xlabel(labels.get_xlabel().replace("tags per set", "labels"))
        _per_category(categories, raw, kept, named, taxonomy_file)
        _words(words, {named[0]: (raw, GREY), named[1]: (kept, BLUE)})


def _sets(rows: list[dict]) -> list[list[str]]:
    return [row["aspect_list"] for row in rows]


def _distinct(rows: list[list[str]]) -> int:
    return len({label for row in rows for label in row})


def _per_category(axes: Axes, raw, kept, named: tuple[str, str], taxonomy_file) -> None:
    """Draw the share of samples with none, one, two and more tags of each category."""
    lookup, taxonomy = load_lookup(taxonomy_file), load_taxonomy(taxonomy_file)
    found = [{tag for aspect in row["aspect_list"] for tag in lookup.of(aspect)} for row in raw]
    counts = {
        category: (
            [len(tags.intersection(taxonomy[category])) for tags in found],
            [len(row[TAGS_OF[category]]) for row in kept],
        )
        for category in CATEGORIES
    }
    shades = ("white", "0.82", "0.58", "0.3")
    y = np.arange(len(CATEGORIES))[::-1]
    for offset, side, colour in ((0.19, 0, GREY), (-0.19, 1, BLUE)):
        left = np.zeros(len(CATEGORIES))
        for k, shade in enumerate(shades):
            shares = [
                100 * np.mean([min(n, len(shades) - 1) == k for n in counts[category][side]])
                for category in CATEGORIES
            ]
            axes.barh(y + offset, shares, 0.34, left, color=shade, ec=colour, lw=0.9)
            left += shares
    labels = ("no tag", "1", "2", "3 or more")
    marks = [axes.barh([0], [0], color=shade, ec="0.3", lw=0.6) for shade in shades]
    axes.legend(marks, labels, loc="lower center", bbox_to_anchor=(0.45, 0.97), ncols=4,
                handlelength=1, columnspacing=1, borderpad=0)  # fmt: skip
    axes.set_yticks(y, CATEGORIES)
    axes.tick_params(axis="y", length=0)
    axes.set(xlim=(0, 100))
    axes.set_xlabel(f"share of samples (%)\nupper bars: {named[0]}\nlower bars: {named[1]}")
    axes.set_title("Tags of a category per sample", pad=16)


def _words(axes: Axes, series: dict) -> None:
    lengths = {
        label: ([len(row["caption"].split()) for row in rows], colour)
        for label, (rows, colour) in series.items()
    }
    most = max(max(words, default=1) for words, _ in lengths.values())
    edges = np.arange(0, most + 10, 5)
    for (label, (words, colour)), dashes in zip(lengths.items(), ("-", "--"), strict=True):
        shares, _ = np.histogram(words, edges)
        mean = np.mean(words) if words else 0
        axes.stairs(100 * shares / max(1, len(words)), edges, color=colour, linewidth=1.4,
                    linestyle=dashes, label=f"{label.split(' (')[0]}, mean {mean:.1f}")  # fmt: skip
    axes.set(xlabel="words", ylabel="share of captions (%)", title="Words per caption")
    axes.margins(y=0.45)  # room for the legend
    axes.set_ylim(bottom=0)
    axes.legend(loc="upper right", borderpad=0, handlelength=1.8)


def plot_latent(*, latent: str | Path, seed: int, output) -> None:
    """Draw a map of the VAE's latent space by genre, at column width (paper figure 2).

    The means of q(z|x) of `MAP_ROWS` pairs, brought to two dimensions by t-SNE (van der Maaten and
    Hinton 2008): neighbours are neighbours in latent space, distances between groups say little.
    A pair is coloured when exactly one of the most frequent genres is its own.

    Args:
        latent: table `schemas.VAE_LATENT`.
        seed: draws the pairs; t-SNE starts from the principal components.
        output: object with the paths `png` and `svg`.
    """
    rows = sorted(read_rows(latent), key=lambda row: row["id"])
    if len(rows) > MAP_ROWS:
        drawn = np.random.default_rng(seed).choice(len(rows), MAP_ROWS, replace=False)
        rows = [rows[n] for n in sorted(drawn)]
    counts = Counter(genre for row in rows for genre in row["genre_aspects"])
    genres = [genre for genre, _ in sorted(counts.items(), key=lambda item: (-item[1], item[0]))]
    genres = genres[:GENRES]
    own = [[genre for genre in row["genre_aspects"] if genre in genres] for row in rows]
    place = _map(np.array([row["mean"] for row in rows]), seed)
    with drawing(output, height=3.9, width=COLUMN) as figure:
        axes = figure.subplots()
        other = np.array([len(found) != 1 for found in own])
        axes.scatter(*place[other].T, s=3, color="0.85", lw=0, label="other, none or several")
        for genre, (colour, marker) in zip(genres, GENRE_LOOKS, strict=False):
            mine = np.array([found == [genre] for found in own])
            axes.scatter(*place[mine].T, s=9, color=colour, marker=marker, lw=0, alpha=0.85,
                         label=f"{genre} ({mine.sum()})")  # fmt: skip
            if mine.any():
                axes.annotate(
                    genre, np.median(place[mine], axis=0), ha="center", va="center", fontsize=7,
                    color=colour, weight="bold",
                    path_effects=[withStroke(linewidth=2, foreground="white")],
                )  # fmt: skip
        axes.set_xticks([], [])
        axes.set_yticks([], [])
        axes.spines[:].set_visible(False)
        axes.set_title(f"Latent space by genre ({len(rows):,} pairs, t-SNE)")
        figure.legend(loc="outside lower center", ncols=2, fontsize=7, handletextpad=0.1)


def _map(x: np.ndarray, seed: int) -> np.ndarray:
    """Return x [N, Z] in two dimensions, [N, 2]."""
    tsne = TSNE(
        perplexity=min(30, (len(x) - 1) / 3),
        init="pca",
        max_iter=MAP_STEPS,
        random_state=seed % 2**32,
    )
    return tsne.fit_transform(x)
