"""Frechet audio distance (FAD) and kernel audio distance (KAD) between sets of clip embeddings.

**Source:** FAD: Kilgour et al. 2019. KAD: Chung et al. 2025 (unbiased MMD of Gretton et al. 2012).
"""

from dataclasses import asdict, dataclass

import numpy as np

from conceptcaps import io, results, seeding
from conceptcaps.errors import InputError

_KAD_SCALE = 100  # by which Chung et al. report MMD^2


@dataclass(frozen=True)
class Spec:
    """Config section `scores.fad`, as far as the score reads it."""

    bootstraps: int  # resamples of the clips on both sides, for the 95 % intervals
    floor_splits: int  # random splits of the reference against itself


@dataclass(frozen=True)
class Gaussian:
    """Mean and covariance of a set of embeddings, the covariance as a root of its scatter."""

    mean: np.ndarray  # (D,)
    root: np.ndarray  # (min(N, D), D) with root.T @ root = (N - 1) * covariance
    n: int  # clips


def fit_gaussian(x: np.ndarray) -> Gaussian:
    """Fit mean and unbiased covariance to embeddings [N, D] in float64, without forming D x D."""
    mean = x.mean(axis=0)
    centred = x - mean
    # An orthonormal factor on the left changes no singular value below: keep the smaller side.
    root = np.linalg.qr(centred, mode="r") if len(x) > x.shape[1] else centred
    return Gaussian(mean=mean, root=root, n=len(x))


def gaussian_distance(a: Gaussian, b: Gaussian) -> float:
    """Return the squared Frechet (2-Wasserstein) distance of two Gaussians.

    d2 = |mu_a - mu_b|^2 + tr S_a + tr S_b - 2 tr (S_a S_b)^1/2, where the last trace is the nuclear
    norm of X_a X_b^T / sqrt((n_a - 1)(n_b - 1)) for centred embeddings X. No matrix square root is
    taken: it is exact for rank-deficient covariances and never complex. Negative values (rounding)
    are returned as they are.
    """
    traces = sum(float((g.root**2).sum()) / (g.n - 1) for g in (a, b))
    cross = np.linalg.svd(a.root @ b.root.T, compute_uv=False).sum()
    cross /= np.sqrt((a.n - 1) * (b.n - 1))
    return float(((a.mean - b.mean) ** 2).sum() + traces - 2 * cross)


def frechet_distance(x: np.ndarray, y: np.ndarray) -> float:
    """Return the Frechet distance of two sets of embeddings [N, D] and [M, D], in float64.

    Raises:
        InputError: a side has fewer than 2 clips, the dimensions differ, or a value is not finite.
    """
    x, y = _checked(x, "x"), _checked(y, "y")
    _check_same_dimension(x, y, "y")
    return gaussian_distance(fit_gaussian(x), fit_gaussian(y))


def median_distance(x: np.ndarray) -> float:
    """Return the median Euclidean distance over all pairs of embeddings [N, D]: KAD's bandwidth.

    Raises:
        InputError: it is 0 (at least half of the pairs are identical).
    """
    pairs = np.triu_indices(len(x), k=1)
    median = float(np.sqrt(np.median(_squared_distances(x, x)[pairs])))
    if median == 0:
        raise InputError("reference: its embeddings are identical; a KAD bandwidth cannot be set.")
    return median


def kernel_distance(x: np.ndarray, y: np.ndarray, *, bandwidth: float) -> float:
    """Return KAD: 100 x unbiased MMD^2 with the kernel exp(-|a - b|^2 / (2 bandwidth^2)).

    Its expectation is 0 for equal distributions at any N, so it can be negative.

    Raises:
        InputError: as `frechet_distance`.
    """
    x, y = _checked(x, "x"), _checked(y, "y")
    _check_same_dimension(x, y, "y")
    kernels = [_kernel(a, b, bandwidth) for a, b in ((x, x), (y, y), (x, y))]
    return _mmd(*kernels, np.ones(len(x)), np.ones(len(y)))


def score(
    *, reference, controls, shards: dict, spec: Spec, recipe: dict, seed: int, output
) -> None:
    """Measure every arm and control against the reference; write FAD and KAD as JSON.

    All arms are measured at the same N: that of the smallest arm, and no more than the reference
    has, since FAD falls with N. Larger arms give a random N of their clips, controls at most N. The
    reference side is always the whole reference. Intervals: bootstrap over clips on both sides, the
    same resampled reference for all arms; the percentiles are shifted by (value - bootstrap mean),
    because duplicates in resamples raise both distances. Floor: random disjoint parts of the
    reference, min(N, half of it) clips against the rest; the value is the mean over splits, the
    interval their 2.5 and 97.5 percentiles. N counts clips everywhere.

    Args:
        reference: EMBEDDINGS table.
        controls: EMBEDDINGS table with ids `<control>-<number>`.
        shards: arm -> its CLAP tables.
        spec: config.
        recipe: what the embeddings depend on, kept with every result.
        seed: the global seed.
        output: {"arms": {arm: [...]}, "controls": {control: [...]}, "floor": [...]}.

    Raises:
        InputError: as `frechet_distance`, for a table.
    """
    base = _read([reference])[1]
    arms = {arm: _read(paths) for arm, paths in shards.items()}
    n = min(len(base), *(len(ids) for ids, _ in arms.values()))
    sets = {arm: _draw(ids, x, n, seed) for arm, (ids, x) in arms.items()}
    groups = _control_groups(controls)
    sets |= {name: _draw(ids, x, n, seed) for name, (ids, x) in groups.items()}
    for name, x in sets.items():
        _check_same_dimension(base, x, name)
    bandwidth = median_distance(base)
    recipe = {
        "clap": recipe,
        **asdict(spec),
        "seed": seed,
        "n_reference": len(base),
        "kad_bandwidth": bandwidth,
        **results.versions("numpy"),
    }
    measured = _measure(sets, base, spec=spec, bandwidth=bandwidth, seed=seed, recipe=recipe)
    floor = _floor(base, n, spec=spec, bandwidth=bandwidth, seed=seed, recipe=recipe)
    io.write_json(
        output,
        {
            "arms": {name: measured[name] for name in arms},
            "controls": {name: measured[name] for name in groups},
            "floor": floor,
        },
    )


def _measure(sets, base, *, spec, bandwidth, seed, recipe) -> dict[str, list[dict]]:
    reference, inner = fit_gaussian(base), _kernel(base, base, bandwidth)
    kernels = {
        name: (_kernel(x, x, bandwidth), inner, _kernel(x, base, bandwidth))
        for name, x in sets.items()
    }
    resampled = {name: np.empty((spec.bootstraps, 2)) for name in sets}
    for b in range(spec.bootstraps):
        rng = seeding.item_rng(seed, "fad/bootstrap", str(b))
        drawn_base = rng.integers(0, len(base), len(base))
        drawn_reference, base_counts = fit_gaussian(base[drawn_base]), _counts(drawn_base)
        for name, x in sets.items():
            drawn = rng.integers(0, len(x), len(x))
            fad = gaussian_distance(fit_gaussian(x[drawn]), drawn_reference)
            resampled[name][b] = fad, _mmd(*kernels[name], _counts(drawn), base_counts)
    measured = {}
    for name, x in sets.items():
        fad = gaussian_distance(fit_gaussian(x), reference)
        kad = _mmd(*kernels[name], np.ones(len(x)), np.ones(len(base)))
        draws = resampled[name] - resampled[name].mean(axis=0) + (fad, kad)
        measured[name] = _results(("fad", "kad"), (fad, kad), draws, len(x), "lower", recipe)
        print(
            f"{name}: FAD {fad:.4f}, KAD {kad:.4f} ({len(x)} clips, {len(base)} of the reference)"
        )
    return measured


def _floor(base, n, *, spec, bandwidth, seed, recipe) -> list[dict]:
    part = min(n, len(base) // 2)
    if part < 2:
        raise InputError(
            f"reference: {len(base)} clips are too few to be split; at least 4 needed."
        )
    kernel = _kernel(base, base, bandwidth)
    draws = np.empty((spec.floor_splits, 2))
    for split in range(spec.floor_splits):
        order = seeding.item_rng(seed, "fad/floor", str(split)).permutation(len(base))
        a, b = order[:part], order[part:]
        fad = gaussian_distance(fit_gaussian(base[a]), fit_gaussian(base[b]))
        blocks = kernel[np.ix_(a, a)], kernel[np.ix_(b, b)], kernel[np.ix_(a, b)]
        draws[split] = fad, _mmd(*blocks, np.ones(len(a)), np.ones(len(b)))
    recipe = {**recipe, "n_reference": len(base) - part}
    names = ("fad_floor", "kad_floor")
    return _results(names, draws.mean(axis=0), draws, part, "none", recipe)


def _results(names, values, draws, n, direction, recipe) -> list[dict]:
    low, high = np.quantile(draws, [0.025, 0.975], axis=0)
    return [
        asdict(results.MetricResult(name, float(value), float(lo), float(hi), n, direction, recipe))
        for name, value, lo, hi in zip(names, values, low, high, strict=True)
    ]


def _squared_distances(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    squares = (x**2).sum(axis=1)[:, None] + (y**2).sum(axis=1)[None] - 2 * x @ y.T
    return np.maximum(squares, 0)  # rounding


def _kernel(x: np.ndarray, y: np.ndarray, bandwidth: float) -> np.ndarray:
    return np.exp(-_squared_distances(x, y) / (2 * bandwidth**2))


def _mmd(xx, yy, xy, x_counts, y_counts) -> float:
    """Unbiased MMD^2 x 100; clip i of x is there x_counts[i] times (1, or as resampled)."""
    n, m = x_counts.sum(), y_counts.sum()
    within_x = (x_counts @ xx @ x_counts - x_counts @ xx.diagonal()) / (n * (n - 1))
    within_y = (y_counts @ yy @ y_counts - y_counts @ yy.diagonal()) / (m * (m - 1))
    return float(_KAD_SCALE * (within_x + within_y - 2 * x_counts @ xy @ y_counts / (n * m)))


def _counts(drawn: np.ndarray) -> np.ndarray:
    return np.bincount(drawn, minlength=len(drawn)).astype(np.float64)


def _draw(ids: list[str], x: np.ndarray, n: int, seed: int) -> np.ndarray:
    """Return n rows, in an order that depends on ids and seed only."""
    order = sorted(range(len(ids)), key=lambda i: seeding.item_seed(seed, "fad/draw", ids[i]))
    return x[order[:n]]


def _control_groups(path) -> dict[str, tuple[list[str], np.ndarray]]:
    ids, x = _read([path])
    names = [name.rsplit("-", 1)[0] for name in ids]
    groups = {}
    for name in dict.fromkeys(names):
        rows = [i for i, other in enumerate(names) if other == name]
        groups[name] = ([ids[i] for i in rows], _checked(x[rows], f"{path} ({name})"))
    return groups


def _read(paths) -> tuple[list[str], np.ndarray]:
    ids, rows = [], []
    for path in paths:
        table = io.read_table(path, ["id", "audio_embedding"])
        ids += table["id"].to_pylist()
        rows += list(table["audio_embedding"].to_numpy())
    where = str(paths[0]) + (f" and {len(paths) - 1} more" if len(paths) > 1 else "")
    if len({len(row) for row in rows}) > 1:
        raise InputError(f"{where}: embeddings of different dimensions. Remake these tables.")
    return ids, _checked(
        np.array(rows, dtype=np.float64).reshape(len(rows), -1 if rows else 0), where
    )


def _checked(x: np.ndarray, where: str) -> np.ndarray:
    x = np.asarray(x, dtype=np.float64)
    if x.ndim != 2 or len(x) < 2:
        raise InputError(f"{where}: {len(x)} clips; a Frechet distance needs at least 2.")
    if not np.isfinite(x).all():
        raise InputError(f"{where}: embeddings that are not finite. Remake them.")
    return x


def _check_same_dimension(x: np.ndarray, y: np.ndarray, name: str) -> None:
    if x.shape[1] != y.shape[1]:
        raise InputError(
            f"{name}: embeddings have {y.shape[1]} dimensions, those they are compared with "
            f"{x.shape[1]}. Embed both with the same CLAP checkpoint."
        )
