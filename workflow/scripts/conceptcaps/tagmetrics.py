"""How good a model of tag sets is: its samples against real sets, and what noise alone would give.

Every array of sets is bool [N, D]: row n has tag d.
"""

import math

import numpy as np
from sklearn.ensemble import RandomForestClassifier
from sklearn.metrics import roc_auc_score
from sklearn.model_selection import StratifiedKFold, cross_val_predict

from conceptcaps.constraints import Constraints
from conceptcaps.results import MetricResult, bootstrap_mean, share

N_SAMPLES = 20_000  # prior samples that are measured
NEAREST = 2000  # of them, that are held against every training row
BOOTSTRAPS = 200
TREES, FOLDS, REPEATS = 100, 5, 3  # of the two-sample test


def micro_jaccard(a: np.ndarray, b: np.ndarray) -> float:
    """Return sum |A and B| / sum |A or B| over the rows of two arrays of sets."""
    a, b = np.asarray(a, bool), np.asarray(b, bool)
    return float((a & b).sum() / max((a | b).sum(), 1))


def cooccurrence_cosine(a: np.ndarray, b: np.ndarray) -> float:
    """Return the cosine of the off-diagonal parts of AᵀA and BᵀB."""
    u, v = _off_diagonal(a), _off_diagonal(b)
    norm = np.linalg.norm(u) * np.linalg.norm(v)
    return float(u @ v / norm) if norm > 0 else math.nan


def _off_diagonal(x: np.ndarray) -> np.ndarray:
    x = np.asarray(x, np.float32)  # counts below 2^24 are exact
    counts = x.T @ x
    return counts[~np.eye(len(counts), dtype=bool)].astype(np.float64)


def marginal_mae(a: np.ndarray, b: np.ndarray) -> float:
    """Return the mean over tags of the difference of their shares among two arrays of sets."""
    return float(np.abs(a.mean(0) - b.mean(0)).mean())


def c2st_auc(a: np.ndarray, b: np.ndarray, *, seed: int) -> tuple[float, float, float]:
    """Return the AUC of a classifier that tells sets of `a` from sets of `b`, and its 95 % range.

    A random forest on the tags and their number, cross-validated on equally many of both, and
    averaged over draws of the larger side; the interval resamples its predictions. 0.5: it cannot
    tell; below: rows of the two sides are near-copies of each other. Source: Lopez-Paz and Oquab
    2017, with the AUC for the accuracy.
    """
    rng = np.random.default_rng(seed)
    n = min(len(a), len(b))
    truth = np.repeat([0, 1], n)
    values, resampled = [], []
    for repeat in range(REPEATS):
        rows = [x[rng.permutation(len(x))[:n]] for x in (a, b)]
        x = np.concatenate(rows).astype(np.float32)
        x = np.hstack([x, x.sum(1, keepdims=True)])
        forest = RandomForestClassifier(TREES, min_samples_leaf=2, random_state=repeat)
        folds = StratifiedKFold(FOLDS, shuffle=True, random_state=repeat)
        score = cross_val_predict(forest, x, truth, cv=folds, method="predict_proba")[:, 1]
        values.append(roc_auc_score(truth, score))
        for _ in range(BOOTSTRAPS // REPEATS):
            drawn = np.concatenate([rng.integers(0, n, n), rng.integers(n, 2 * n, n)])
            resampled.append(roc_auc_score(truth[drawn], score[drawn]))
    low, high = np.quantile(resampled, [0.025, 0.975])
    return float(np.mean(values)), float(low), float(high)


def nearest_jaccard(x: np.ndarray, known: np.ndarray) -> np.ndarray:
    """Return each set's Jaccard similarity to the most similar known set: float [N]."""
    x, known = x.astype(np.float32), known.astype(np.float32)
    both = x @ known.T
    either = x.sum(1, keepdims=True) + known.sum(1) - both
    return (both / np.maximum(either, 1)).max(1)


def keys(x: np.ndarray) -> list[bytes]:
    """Return a hashable key of each set."""
    return [row.tobytes() for row in np.packbits(x, axis=1)]


def reconstruction(x: np.ndarray, found: np.ndarray, recipe: dict) -> list[MetricResult]:
    """Measure reconstructions of held-out sets: micro Jaccard, and Hamming distance a tag."""
    rng = np.random.default_rng(0)
    both, either = (x & found).sum(1), (x | found).sum(1)
    drawn = rng.integers(0, len(x), (BOOTSTRAPS, len(x)))
    low, high = np.quantile(both[drawn].sum(1) / either[drawn].sum(1), [0.025, 0.975])
    jaccard = micro_jaccard(x, found)
    hamming = bootstrap_mean((found != x).mean(1))
    return [
        MetricResult("heldout_jaccard", jaccard, low, high, len(x), "higher", recipe),
        MetricResult("heldout_hamming", *hamming, len(x), "lower", recipe),
    ]


def of_samples(
    samples: np.ndarray,
    *,
    train: np.ndarray,
    unseen: np.ndarray,
    constraints: Constraints,
    seed: int,
    recipe: dict,
    prefix: str = "prior_",
) -> list[MetricResult]:
    """Measure samples [N, D], before any rejection, against the rows a model was fitted to.

    Only the two-sample test looks at `unseen` rows, which the model was not fitted to; its n is
    that of the rows on each side. Intervals resample the samples, where the figure is a mean or a
    comparison of means; none covers the choice of the training rows, for which see `ceilings`.
    """
    made = keys(samples)
    distinct = set(made)
    known = set(keys(train))
    size = samples.sum(1)
    enough = constraints.n_categories(samples) >= constraints.min_categories
    figures = [
        ("cooccurrence_cosine", _interval(samples, train, cooccurrence_cosine), "higher"),
        ("marginal_mae", _interval(samples, train, marginal_mae), "lower"),
        ("enough_categories", share(enough), "higher"),
        ("contradictions", share(constraints.contradicts(samples)), "lower"),
        ("unimplied", share(constraints.unimplied(samples)), "lower"),
        ("unique", (len(distinct) / len(samples), None, None), "higher"),
        ("novel", (len(distinct - known) / len(distinct), None, None), "higher"),
        ("tags_per_set", bootstrap_mean(size), "none"),
        ("tags_per_set_w1", (_size_distance(size, train.sum(1)), None, None), "lower"),
        ("nearest_train", bootstrap_mean(nearest_jaccard(samples[:NEAREST], train)), "none"),
        ("c2st_auc", c2st_auc(unseen, samples, seed=seed), "lower"),
    ]
    n = {"nearest_train": min(len(samples), NEAREST), "c2st_auc": min(len(samples), len(unseen))}
    return [
        MetricResult(
            prefix + name, *map(_number, value), n.get(name, len(samples)), direction, recipe
        )
        for name, value, direction in figures
    ]


def ceilings(train: np.ndarray, unseen: np.ndarray, *, seed: int, recipe: dict) -> list:
    """Measure what the choice of rows alone does to the figures: real sets against real sets.

    data_halves_*: two random halves of the training rows, averaged over ten splits; data_c2st_auc:
    unseen against training rows; data_nearest_train: of unseen rows, to compare with samples.
    """
    rng = np.random.default_rng(seed)
    half = len(train) // 2
    halves = [np.split(train[rng.permutation(len(train))[: 2 * half]], 2) for _ in range(10)]
    figures = [
        ("data_halves_cosine", _spread([cooccurrence_cosine(a, b) for a, b in halves]), "none"),
        ("data_halves_mae", _spread([marginal_mae(a, b) for a, b in halves]), "none"),
        ("data_c2st_auc", c2st_auc(unseen, train, seed=seed), "none"),
        ("data_nearest_train", bootstrap_mean(nearest_jaccard(unseen, train)), "none"),
        ("data_tags_per_set", bootstrap_mean(train.sum(1)), "none"),
    ]
    return [
        MetricResult(name, *(_number(v) for v in value), len(train), direction, recipe)
        for name, value, direction in figures
    ]


def _size_distance(a: np.ndarray, b: np.ndarray) -> float:
    """Return the Wasserstein-1 distance of two samples of whole numbers: sum |F_a - F_b|."""
    bins = max(a.max(), b.max()) + 1
    shares = [np.bincount(sizes, minlength=bins) / len(sizes) for sizes in (a, b)]
    return float(np.abs(np.cumsum(shares[0] - shares[1])).sum())


def _spread(values: list[float]) -> tuple[float, float, float]:
    return float(np.mean(values)), float(np.min(values)), float(np.max(values))


def _number(value) -> float | None:
    return None if value is None else float(value)


def _interval(samples: np.ndarray, train: np.ndarray, compare, *, n_boot: int = 20) -> tuple:
    """Return a comparison and its 95 % normal interval from resampled samples.

    Resampling moves such figures to the worse side: only their spread is taken.
    """
    rng = np.random.default_rng(0)
    n = len(samples)
    value = compare(samples, train)
    again = [compare(samples[rng.integers(0, n, n)], train) for _ in range(n_boot)]
    return value, value - 1.96 * np.std(again), value + 1.96 * np.std(again)
