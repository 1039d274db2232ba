"""Kernel distances against closed forms."""

import numpy as np
import pytest

from conceptcaps import mmd
from conceptcaps.errors import InputError


def test_kernel_distance_is_unbiased():
    rng = np.random.default_rng(3)
    draws = [
        mmd.kernel_distance(
            rng.standard_normal((12, 4)), rng.standard_normal((20, 4)), bandwidth=2.0
        )
        for _ in range(600)
    ]
    error = np.std(draws) / np.sqrt(len(draws))
    assert abs(np.mean(draws)) < 4 * error  # at N = 12: the biased estimate is 30 errors off
    assert min(draws) < 0


def test_kernel_distance_by_hand():
    x, y = np.array([[0.0], [1.0]]), np.array([[0.0], [2.0]])
    k = np.exp(-np.array([0, 1, 4, 1, 1]) / 2)  # squared distances: 0-0, 0-1, 0-2, 1-0, 1-2
    expected = 100 * (k[1] + k[2] - 2 * (k[0] + k[2] + k[3] + k[4]) / 4)
    assert mmd.kernel_distance(x, y, bandwidth=1.0) == pytest.approx(expected)


def test_median_distance_by_hand():
    assert mmd.median_distance(np.array([[0.0], [1.0], [3.0]])) == pytest.approx(2.0)
    with pytest.raises(InputError, match="identical"):
        mmd.median_distance(np.ones((4, 2)))


def test_the_median_of_a_large_reference_is_that_of_a_part():
    x = np.random.default_rng(0).standard_normal((4500, 3))
    assert mmd.median_distance(x) == pytest.approx(np.sqrt(2 * 2.366), rel=0.02)  # chi2_3 median


def test_blocks_and_counts_give_the_distance_of_the_resamples(monkeypatch):
    monkeypatch.setattr(mmd, "_BLOCK", 7)
    rng = np.random.default_rng(0)
    x, y = rng.standard_normal((30, 4)), rng.standard_normal((20, 4))
    drawn = [(rng.integers(0, 30, 30), rng.integers(0, 20, 20)) for _ in range(3)]
    of_x, of_y = (
        np.stack([np.bincount(pair[k], minlength=n) for pair in drawn])
        for k, n in enumerate((30, 20))
    )
    inner = mmd.kernel_sums(y, y, of_y, of_y, bandwidth=2.0)
    found = mmd.resampled_distances(x, y, of_x, of_y, bandwidth=2.0, inner=inner)
    monkeypatch.undo()
    for value, (a, b) in zip(found, drawn, strict=True):
        assert value == pytest.approx(mmd.kernel_distance(x[a], y[b], bandwidth=2.0))


@pytest.mark.parametrize(
    ("x", "message"),
    [
        (np.ones((1, 4)), "1 clips"),
        (np.ones((5, 3)), "dimensions"),
        (np.full((5, 4), np.nan), "5 of 5"),
    ],
)
def test_bad_sets_are_refused(x, message):
    with pytest.raises(InputError, match=message):
        mmd.kernel_distance(x, np.ones((5, 4)), bandwidth=1.0)
