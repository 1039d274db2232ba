"""Frechet distances against closed forms."""

import time
import tracemalloc

import numpy as np
import pytest
from scipy.linalg import sqrtm

from conceptcaps import frechet
from conceptcaps.errors import InputError


def draw(n, d, *, seed=0, mean=0.0, scale=1.0):
    return mean + scale * np.random.default_rng(seed).standard_normal((n, d))


def whiten(x):
    """Return x moved to sample mean exactly 0 and sample covariance exactly the identity."""
    centred = x - x.mean(axis=0)
    left, _, right = np.linalg.svd(centred, full_matrices=False)
    return left @ right * np.sqrt(len(x) - 1)


def by_square_root(x, y):
    sx, sy = np.cov(x.T), np.cov(y.T)
    return ((x.mean(0) - y.mean(0)) ** 2).sum() + np.trace(sx + sy - 2 * sqrtm(sx @ sy).real)


def test_a_set_is_at_distance_0_from_itself():
    for shape in ((200, 16), (10, 64)):
        x = draw(*shape)
        assert abs(frechet.frechet_distance(x, x)) < 1e-8
        assert abs(frechet.frechet_distance(x, x[::-1])) < 1e-8  # the order of clips is nothing


def test_known_gaussians():
    x = whiten(draw(300, 8))
    shift = np.arange(8.0)
    assert frechet.frechet_distance(x, x + shift) == pytest.approx((shift**2).sum())
    assert frechet.frechet_distance(x, 3 * x) == pytest.approx(8 * (3 - 1) ** 2)
    # Commuting covariances: sum over axes of (mean difference)^2 + (sd difference)^2.
    scales, y = np.linspace(0.5, 4, 8), whiten(draw(500, 8, seed=1))
    expected = (shift**2).sum() + ((scales - 1) ** 2).sum()
    assert frechet.frechet_distance(x, y * scales + shift) == pytest.approx(expected)


@pytest.mark.parametrize(("n", "m"), [(400, 300), (300, 30), (30, 400), (25, 20)])
def test_equals_the_matrix_square_root(n, m):
    mix = draw(20, 20, seed=5)
    x, y = draw(n, 20, seed=1) @ mix, draw(m, 20, seed=2, mean=0.3)
    assert frechet.frechet_distance(x, y) == pytest.approx(by_square_root(x, y), abs=1e-6)


def test_rank_deficient_sets_are_real_and_right():
    # Scatter in two orthogonal planes: the cross term vanishes, whatever the null spaces hold.
    x, y = np.zeros((5, 64)), np.zeros((7, 64))
    x[:, :2], y[:, 2:4] = draw(5, 2), draw(7, 2, seed=1)
    expected = (
        ((x.mean(0) - y.mean(0)) ** 2).sum() + x.var(0, ddof=1).sum() + y.var(0, ddof=1).sum()
    )
    distance = frechet.frechet_distance(x, y)
    assert isinstance(distance, float)
    assert distance == pytest.approx(expected)
    silence = np.ones((9, 64))  # no scatter at all
    expected = ((x.mean(0) - 1) ** 2).sum() + x.var(0, ddof=1).sum()
    assert frechet.frechet_distance(x, silence) == pytest.approx(expected)


def test_paper_scale_is_fast():
    started = time.perf_counter()
    frechet.frechet_distance(draw(1000, 512), draw(1000, 512, seed=1))
    assert time.perf_counter() - started < 30  # 0.3 s on a quiet core


@pytest.mark.parametrize(
    ("x", "y", "message"),
    [
        (np.ones((1, 4)), np.ones((5, 4)), "1 clips"),
        (np.ones((5, 4)), np.ones((5, 3)), "4 dimensions|3 dimensions"),
        (np.full((5, 4), np.nan), np.ones((5, 4)), "not finite"),
    ],
)
def test_bad_sets_are_refused(x, y, message):
    with pytest.raises(InputError, match=message):
        frechet.frechet_distance(x, y)


def test_paper_scale_is_frugal():
    x, y = draw(1000, 512), draw(1000, 512, seed=1)
    tracemalloc.start()
    frechet.frechet_distance(x, y)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 100e6  # bytes, beside the embeddings and the interpreter


def test_the_distance_of_a_set_to_itself_is_a_trillionth_of_its_trace():
    x = draw(1000, 512, scale=3.0, mean=2.0)
    assert abs(frechet.frechet_distance(x, x)) < 1e-8 * np.trace(np.cov(x.T))


def test_negative_values_are_reported_as_they_are():
    found = [frechet.frechet_distance(x, x[::-1]) for x in (draw(40, 64, seed=s) for s in range(9))]
    assert min(found) < 0  # by rounding: not clipped


@pytest.mark.parametrize(("n", "d"), [(5000, 12), (400, 12), (30, 12), (10, 12)])
def test_counts_stand_for_resampled_clips(n, d):
    x, y = draw(n, d), draw(60, d, seed=1)
    drawn = np.random.default_rng(2).integers(0, n, n)
    counted = frechet.fit_gaussian(x, np.bincount(drawn, minlength=n))
    told, other = frechet.fit_gaussian(x[drawn]), frechet.fit_gaussian(y)
    assert frechet.gaussian_distance(counted, other) == pytest.approx(
        frechet.gaussian_distance(told, other), abs=1e-9
    )


def test_infinity_takes_the_bias_of_size_away():
    x, y = draw(4000, 16), draw(20000, 16, seed=1)
    reference = frechet.fit_gaussian(y)
    rng = np.random.default_rng(0)
    line = frechet.extrapolate(x, reference, largest=200, sizes=8, repeats=10, rng=rng)
    at_200 = line.means[-1]
    assert at_200 > 0.1  # equal distributions: size alone
    assert abs(line.value) < 0.1 * at_200
    assert line.slope > 0 and line.r2 > 0.95
    assert line.sizes[0] == 50 and line.sizes[-1] == 200
    assert line.error < 0.1 * at_200


def test_subsets_are_drawn_without_replacement():
    x, y = draw(64, 4), draw(80, 4, seed=1)
    line = frechet.extrapolate(
        x, frechet.fit_gaussian(y), largest=64, sizes=4, repeats=2, rng=np.random.default_rng(0)
    )
    assert line.means[-1] == pytest.approx(frechet.frechet_distance(x, y))  # the set itself


def test_too_few_clips_for_infinity_says_how_many():
    for x, largest, least in ((draw(5, 3), 5, 8), (draw(20, 3), 30, 30)):
        with pytest.raises(InputError, match=f"{len(x)} clips: FAD infinity needs {least}"):
            frechet.extrapolate(
                x, frechet.fit_gaussian(x), largest=largest, sizes=5, repeats=2,
                rng=np.random.default_rng(0),
            )  # fmt: skip
