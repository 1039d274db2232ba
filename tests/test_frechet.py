"""Frechet and kernel distances against closed forms."""

import time

import numpy as np
import pytest
from scipy.linalg import sqrtm

from conceptcaps import frechet, io, schemas
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
    with pytest.raises(InputError, match=message):
        frechet.kernel_distance(x, y, bandwidth=1.0)


def test_kernel_distance_is_unbiased():
    rng = np.random.default_rng(3)
    draws = [
        frechet.kernel_distance(
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
    assert frechet.kernel_distance(x, y, bandwidth=1.0) == pytest.approx(expected)


def test_median_distance_by_hand():
    assert frechet.median_distance(np.array([[0.0], [1.0], [3.0]])) == pytest.approx(2.0)
    with pytest.raises(InputError, match="identical"):
        frechet.median_distance(np.ones((4, 2)))


def write(path, x, name):
    rows = [{"id": f"{name}-{i:04d}", "audio_embedding": row} for i, row in enumerate(x)]
    io.write_table(path, rows, schemas.EMBEDDINGS)
    return path


@pytest.fixture
def tables(tmp_path):
    noise, silence = draw(30, 6, seed=9, mean=3), np.zeros((30, 6))
    names = [f"noise-{i:04d}" for i in range(30)] + [f"silence-{i:04d}" for i in range(30)]
    rows = [
        {"id": i, "audio_embedding": x}
        for i, x in zip(names, np.vstack([noise, silence]), strict=True)
    ]
    io.write_table(tmp_path / "controls.parquet", rows, schemas.EMBEDDINGS)
    near = draw(90, 6, seed=1, mean=0.2)
    return {
        "reference": write(tmp_path / "reference.parquet", draw(120, 6), "gtzan"),
        "controls": tmp_path / "controls.parquet",
        "shards": {
            "near": [
                write(tmp_path / "near0.parquet", near[:50], "a"),
                write(tmp_path / "near1.parquet", near[50:], "b"),
            ],
            "far": [write(tmp_path / "far.parquet", draw(60, 6, seed=2, mean=1), "c")],
        },
    }


def run(tables, output):
    spec = frechet.Spec(bootstraps=40, floor_splits=10)
    frechet.score(**tables, spec=spec, recipe={"model": "x"}, seed=1, output=output)
    return io.read_json(output)


def test_score_compares_at_equal_n(tables, tmp_path):
    found = run(tables, tmp_path / "fad.json")
    assert set(found) == {"arms", "controls", "floor"}
    fad = {name: kinds[0] for name, kinds in (found["arms"] | found["controls"]).items()}
    assert [metric["name"] for metric in found["arms"]["near"]] == ["fad", "kad"]
    assert {name: metric["n"] for name, metric in fad.items()} == {
        "near": 60,  # of its 90: the smallest arm's
        "far": 60,
        "noise": 30,
        "silence": 30,
    }
    assert fad["near"]["recipe"]["n_reference"] == 120
    assert fad["near"]["value"] < fad["far"]["value"] < fad["noise"]["value"]
    assert fad["near"]["ci_high"] < fad["far"]["ci_low"]
    assert fad["far"]["value"] == pytest.approx(6, abs=1.5)  # |mean difference|^2 = 6
    for metric in (*fad.values(), *(kinds[1] for kinds in found["arms"].values())):
        assert metric["ci_low"] <= metric["value"] <= metric["ci_high"]
    floor = {metric["name"]: metric for metric in found["floor"]}
    assert floor["fad_floor"]["n"] == 60
    assert 0 < floor["fad_floor"]["value"] < fad["near"]["value"]
    assert floor["kad_floor"]["ci_low"] < 0 < floor["kad_floor"]["ci_high"]


def test_intervals_hold_the_value_where_resampling_is_biased(tables, tmp_path):
    # Few clips in many dimensions: each resample's distances lie far above the value.
    tables["reference"] = write(tmp_path / "wide.parquet", draw(60, 30), "gtzan")
    tables["controls"] = write(tmp_path / "noise.parquet", draw(40, 30, seed=3), "noise")
    tables["shards"] = {"same": [write(tmp_path / "same.parquet", draw(60, 30, seed=4), "a")]}
    for metric in run(tables, tmp_path / "fad.json")["arms"]["same"]:
        assert metric["ci_low"] < metric["value"] < metric["ci_high"]


def test_score_does_not_depend_on_shards(tables, tmp_path):
    first = run(tables, tmp_path / "a.json")
    tables["shards"]["near"].reverse()
    second = run(tables, tmp_path / "b.json")
    assert second["arms"]["near"][0]["value"] == pytest.approx(first["arms"]["near"][0]["value"])
    assert second["arms"]["near"][0]["ci_low"] == pytest.approx(first["arms"]["near"][0]["ci_low"])


def test_score_names_the_table_that_does_not_fit(tables, tmp_path):
    tables["shards"]["far"] = [write(tmp_path / "wide.parquet", draw(60, 7), "c")]
    with pytest.raises(InputError, match="far: embeddings have 7 dimensions"):
        run(tables, tmp_path / "fad.json")
    write(tmp_path / "one.parquet", draw(1, 6), "c")
    tables["shards"]["far"] = [tmp_path / "one.parquet"]
    with pytest.raises(InputError, match=r"one\.parquet: 1 clips"):
        run(tables, tmp_path / "fad.json")
