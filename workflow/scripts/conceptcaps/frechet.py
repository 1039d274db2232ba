"""Frechet audio distance (FAD) between sets of clip embeddings, and what it would be of many clips.

    python -m conceptcaps.frechet REF_DIR GEN_DIR [GEN_DIR ...]

measures folders of audio (see `conceptcaps.folders`); `--help` says how.

**Source:** Kilgour et al. 2019; FAD of infinitely many clips: Gui et al. 2024.
"""

from dataclasses import dataclass

import numpy as np

from conceptcaps.errors import InputError

_GRAM_RATIO = 4  # resamples with so many times more clips than dimensions are rooted by scatter
_BLOCK = 2048  # weighted rows in memory at a time: 8 MB at 512 dimensions


@dataclass(frozen=True)
class Gaussian:
    """Mean and covariance of a set of embeddings, the covariance as a root of its scatter."""

    mean: np.ndarray  # (D,)
    root: np.ndarray  # (min(N, D), D) with root.T @ root = (N - 1) * covariance
    n: float  # clips


@dataclass(frozen=True)
class Extrapolation:
    """A line through mean distances of subsets of n clips, over 1 / n, read at 1 / n = 0."""

    value: float  # FAD of infinitely many clips
    error: float  # standard error of that reading, from the residuals
    slope: float  # by how much the distance falls, in units of 1 / n
    r2: float  # share of the means' variance that the line explains
    sizes: list[int]
    means: list[float]


def fit_gaussian(x: np.ndarray, counts: np.ndarray | None = None) -> Gaussian:
    """Fit mean and unbiased covariance to embeddings [N, D] in float64, without forming D x D.

    With `counts` [N], clip i is there counts[i] times: a bootstrap resample. Where such a resample
    has many more clips than dimensions its root comes from the D x D scatter, which is faster; a
    set without counts never takes that way, which would cost half of the digits.
    """
    if counts is None:
        mean = x.mean(axis=0)
        return Gaussian(mean=mean, root=_shorten(x - mean), n=len(x))
    drawn, n = np.flatnonzero(counts), counts.sum()
    weights = np.sqrt(counts[drawn])
    mean = (counts @ x) / n
    if len(drawn) > _GRAM_RATIO * x.shape[1]:
        try:
            scatter = _scatter(x, drawn, weights) - n * np.outer(mean, mean)
            return Gaussian(mean=mean, root=np.linalg.cholesky(scatter).T, n=n)
        except np.linalg.LinAlgError:
            pass  # rank-deficient: by QR
    rows = x[drawn] * weights[:, None]
    return Gaussian(mean=mean, root=_shorten(rows - np.outer(weights, mean)), n=n)


def _scatter(x: np.ndarray, drawn: np.ndarray, weights: np.ndarray) -> np.ndarray:
    total = np.zeros((x.shape[1], x.shape[1]))
    for i in range(0, len(drawn), _BLOCK):
        rows = x[drawn[i : i + _BLOCK]]
        rows *= weights[i : i + _BLOCK, None]
        total += rows.T @ rows  # BLAS computes one half
    return total


def _shorten(centred: np.ndarray) -> np.ndarray:
    # An orthonormal factor on the left changes no singular value below: keep the smaller side.
    tall = len(centred) > centred.shape[1]
    return np.linalg.qr(centred, mode="r") if tall else centred


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
    x, y = checked(x, "x"), checked(y, "y")
    check_same_dimension(x, y, "y")
    return gaussian_distance(fit_gaussian(x), fit_gaussian(y))


def extrapolate(
    x: np.ndarray,
    reference: Gaussian,
    *,
    largest: int,
    sizes: int,
    repeats: int,
    rng: np.random.Generator,
) -> Extrapolation:
    """Return FAD infinity: the distance that a set's bias by its size is taken from.

    At each of `sizes` sizes, equally spaced in 1 / n from a quarter of `largest` to `largest`,
    `repeats` subsets are drawn from x [N, D] without replacement, and a line is fitted to their
    mean distances. The reference is one set throughout: what its own size adds stays in the value.

    Args:
        x: embeddings, more than `largest` or as many.
        reference: the other side.
        largest: clips in the largest subsets.
        sizes: how many different sizes, 3 or more.
        repeats: subsets of each size.
        rng: draws the subsets.

    Raises:
        InputError: `largest` is too small for so many different sizes, or x has fewer clips.

    **Source:** Gui et al. 2024. **Differs:** they draw with replacement, which adds duplicates.
    """
    n = np.unique(np.round(1 / np.linspace(4 / largest, 1 / largest, sizes)).astype(int))
    if len(x) < largest or n[0] < 2 or len(n) < 3:
        raise InputError(
            f"{len(x)} clips: FAD infinity needs {max(largest, 8)} at least, so that subsets of "
            "three different sizes can be drawn."
        )
    means = [
        np.mean(
            [
                gaussian_distance(fit_gaussian(x[rng.permutation(len(x))[:size]]), reference)
                for _ in range(repeats)
            ]
        )
        for size in n
    ]
    design = np.column_stack([np.ones(len(n)), 1 / n])
    (value, slope), *_ = np.linalg.lstsq(design, np.array(means), rcond=None)
    residual = means - design @ (value, slope)
    spread = ((means - np.mean(means)) ** 2).sum()
    variance = (residual**2).sum() / (len(n) - 2) * np.linalg.inv(design.T @ design)[0, 0]
    return Extrapolation(
        value=float(value),
        error=float(np.sqrt(variance)),
        slope=float(slope),
        r2=float(1 - (residual**2).sum() / spread) if spread > 0 else 0.0,
        sizes=[int(size) for size in n],
        means=[float(mean) for mean in means],
    )


def checked(x: np.ndarray, where: str) -> np.ndarray:
    """Return embeddings [N, D] in float64.

    Raises:
        InputError: fewer than 2 clips, or values that are not finite; it names `where`.
    """
    x = np.asarray(x, dtype=np.float64)
    if x.ndim != 2 or len(x) < 2:
        raise InputError(f"{where}: {len(x)} clips; a Frechet distance needs at least 2.")
    broken = np.flatnonzero(~np.isfinite(x).all(axis=1))
    if len(broken):
        raise InputError(
            f"{where}: embeddings that are not finite: {len(broken)} of {len(x)}, the first in row "
            f"{broken[0]}. Remake them."
        )
    return x


def check_same_dimension(x: np.ndarray, y: np.ndarray, name: str) -> None:
    """Check that two sets of embeddings can be compared.

    Raises:
        InputError: their dimensions differ; `name` is y's.
    """
    if x.shape[1] != y.shape[1]:
        raise InputError(
            f"{name}: embeddings have {y.shape[1]} dimensions, those they are compared with "
            f"{x.shape[1]}. Embed both with the same checkpoint."
        )


if __name__ == "__main__":
    import runpy

    # By name, not by import: the rules that measure distances do not depend on the command.
    runpy.run_module("conceptcaps.folders", run_name="__main__")
