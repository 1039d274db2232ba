"""Kernel audio distance (KAD): maximum mean discrepancy between sets of clip embeddings.

**Source:** Chung et al. 2025; the unbiased estimate: Gretton et al. 2012, equation 3.
"""

import numpy as np

from conceptcaps.errors import InputError
from conceptcaps.frechet import check_same_dimension, checked

_SCALE = 100  # by which Chung et al. report MMD^2
_BLOCK = 2048  # rows of the kernel in memory at a time: 34 MB
_MOST_FOR_MEDIAN = 4000  # clips; of a larger reference as many, equally spaced, stand for all


def median_distance(x: np.ndarray) -> float:
    """Return the median Euclidean distance over all pairs of embeddings [N, D]: KAD's bandwidth.

    Raises:
        InputError: it is 0 (at least half of the pairs are identical).
    """
    if len(x) > _MOST_FOR_MEDIAN:
        x = x[np.linspace(0, len(x) - 1, _MOST_FOR_MEDIAN).astype(int)]
    pairs = np.triu_indices(len(x), k=1)
    median = float(np.sqrt(np.median(_squared_distances(x, x)[pairs])))
    if median == 0:
        raise InputError("reference: its embeddings are identical; a KAD bandwidth cannot be set.")
    return median


def kernel_distance(x: np.ndarray, y: np.ndarray, *, bandwidth: float) -> float:
    """Return KAD: 100 x unbiased MMD^2 with the kernel exp(-|a - b|^2 / (2 bandwidth^2)).

    Its expectation is 0 for equal distributions at any N, so it can be negative.

    Raises:
        InputError: as `frechet.frechet_distance`.
    """
    x, y = checked(x, "x"), checked(y, "y")
    check_same_dimension(x, y, "y")
    once = np.ones((1, len(x))), np.ones((1, len(y)))
    inner = kernel_sums(y, y, once[1], once[1], bandwidth=bandwidth)
    return float(resampled_distances(x, y, *once, bandwidth=bandwidth, inner=inner)[0])


def resampled_distances(
    x: np.ndarray,
    y: np.ndarray,
    x_counts: np.ndarray,
    y_counts: np.ndarray,
    *,
    bandwidth: float,
    inner: np.ndarray,
) -> np.ndarray:
    """Return KAD [B] of B resamples, all in one pass over the kernel, which is never whole.

    Args:
        x: embeddings [N, D].
        y: embeddings [M, D].
        x_counts: how often each clip of x is in each resample, [B, N].
        y_counts: the same for y, [B, M].
        bandwidth: of the kernel.
        inner: `kernel_sums` of y with itself, [B]: the same for every x.
    """
    n, m = x_counts.sum(axis=1), y_counts.sum(axis=1)
    within_x = kernel_sums(x, x, x_counts, x_counts, bandwidth=bandwidth) - n
    across = kernel_sums(x, y, x_counts, y_counts, bandwidth=bandwidth)
    # A clip's kernel with itself is 1; it is not a pair.
    within = within_x / (n * (n - 1)) + (inner - m) / (m * (m - 1))
    return _SCALE * (within - 2 * across / (n * m))


def kernel_sums(
    x: np.ndarray, y: np.ndarray, x_counts: np.ndarray, y_counts: np.ndarray, *, bandwidth: float
) -> np.ndarray:
    """Return sum_ij x_counts[b, i] y_counts[b, j] k(x_i, y_j) for every resample b, [B]."""
    same = x is y and x_counts is y_counts
    total = np.zeros(len(x_counts))
    for i in range(0, len(x), _BLOCK):
        for j in range(i if same else 0, len(y), _BLOCK):
            rows, columns = slice(i, i + _BLOCK), slice(j, j + _BLOCK)
            kernel = _squared_distances(x[rows], y[columns])
            np.exp(np.multiply(kernel, -0.5 / bandwidth**2, out=kernel), out=kernel)
            part = ((x_counts[:, rows] @ kernel) * y_counts[:, columns]).sum(axis=1)
            total += 2 * part if same and j > i else part  # the kernel is symmetric
    return total


def _squared_distances(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    products = x @ y.T
    products *= -2
    products += (x**2).sum(axis=1)[:, None]
    products += (y**2).sum(axis=1)
    return np.maximum(products, 0, out=products)  # rounding
