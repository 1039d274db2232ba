"""What the splits of a dataset share: tag sets, near-equal sets, captions, clips, tags."""

from collections.abc import Sequence
from itertools import combinations

import numpy as np

from conceptcaps.errors import InputError

SPLITS = ("train", "validation", "test")
NEAR = (0.9, 0.8, 0.7)  # Jaccard indices from which two tag sets are called near-equal
_ROWS = 512  # compared at a time


def leakage(
    *, splits: Sequence[str], tag_sets: Sequence[Sequence[str]], captions: Sequence[str]
) -> dict:
    """Return the leakage report of N rows.

    `shared` counts the distinct tag sets and captions that lie in both splits of a pair. For
    validation and test, `nearest_training_set` says how near the rows' tag sets come to a training
    set, as the Jaccard index |A & B| / |A | B|: mean, largest, and the share of rows at or above
    each of `NEAR`. `tags_without_training_rows` are held-out tags that no training row has.

    Raises:
        InputError: a tag set lies in two splits.
    """
    names = np.array(splits)
    keys = ["\x1f".join(sorted(set(tags))) for tags in tag_sets]
    sets = {split: {keys[i] for i in np.flatnonzero(names == split)} for split in SPLITS}
    texts = {split: {captions[i] for i in np.flatnonzero(names == split)} for split in SPLITS}
    shared = {
        f"{a}, {b}": {
            "tag_sets": len(sets[a] & sets[b]),
            "captions": len(texts[a] & texts[b]),
        }
        for a, b in combinations(SPLITS, 2)
    }
    for pair, counts in shared.items():
        if counts["tag_sets"]:
            raise InputError(
                f"the splits {pair} share {counts['tag_sets']} tag sets: a model would be tested "
                "on what it was trained on. Run export_dataset again."
            )
    held = _membership(tag_sets)
    train = names == "train"
    heard = held[train].any(axis=0)
    report = {
        "rows": {split: int((names == split).sum()) for split in SPLITS},
        "distinct_tag_sets": {split: len(sets[split]) for split in SPLITS},
        "shared": shared,
        "nearest_training_set": {},
        "tags_without_training_rows": {},
    }
    vocabulary = sorted({tag for tags in tag_sets for tag in tags})
    for split in ("validation", "test"):
        rows = names == split
        if rows.any() and train.any():
            nearest = _nearest(held[rows], held[train])
            report["nearest_training_set"][split] = {
                "mean": float(nearest.mean()),
                "largest": float(nearest.max()),
                "share_at_least": {str(at): float((nearest >= at).mean()) for at in NEAR},
            }
        unheard = held[rows].any(axis=0) & ~heard
        report["tags_without_training_rows"][split] = [
            vocabulary[i] for i in np.flatnonzero(unheard)
        ]
    return report


def _membership(tag_sets: Sequence[Sequence[str]]) -> np.ndarray:
    """Return which set has which tag of the sorted vocabulary, bool [N, V]."""
    vocabulary = sorted({tag for tags in tag_sets for tag in tags})
    number = {tag: i for i, tag in enumerate(vocabulary)}
    held = np.zeros((len(tag_sets), len(vocabulary)), bool)
    for row, tags in enumerate(tag_sets):
        held[row, [number[tag] for tag in tags]] = True
    return held


def _nearest(held: np.ndarray, train: np.ndarray) -> np.ndarray:
    """Return each row's largest Jaccard index with a training row, [N]; a few rows at a time."""
    others = train.astype(np.float32).T  # (V, M)
    sizes = others.sum(axis=0)
    best = []
    for start in range(0, len(held), _ROWS):
        rows = held[start : start + _ROWS].astype(np.float32)
        common = (rows @ others).astype(np.float64)
        union = rows.sum(axis=1, keepdims=True) + sizes - common
        best.append((common / np.maximum(union, 1)).max(axis=1))
    return np.concatenate(best)
