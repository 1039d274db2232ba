"""FAD and KAD of arms against a reference: equal N, intervals, floor, verdicts."""

import numpy as np
import pytest

from conceptcaps import distances, frechet, io, mmd, schemas
from conceptcaps.errors import InputError


def draw(n, d, *, seed=0, mean=0.0):
    return mean + np.random.default_rng(seed).standard_normal((n, d))


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
    spec = distances.Spec(bootstraps=40, floor_splits=10, infinity_sizes=6, infinity_repeats=10)
    distances.score(**tables, spec=spec, recipe={"model": "x"}, seed=1, output=output)
    return io.read_json(output)


def test_score_compares_at_equal_n(tables, tmp_path):
    found = run(tables, tmp_path / "fad.json")
    assert set(found) == {"arms", "controls", "control_floors", "floor", "comparisons"}
    fad = {name: kinds[0] for name, kinds in (found["arms"] | found["controls"]).items()}
    assert [metric["name"] for metric in found["arms"]["near"]] == ["fad", "kad", "fad_infinity"]
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
    of_noise = found["control_floors"]["noise"][0]
    assert of_noise["n"] == 30 and of_noise["value"] > floor["fad_floor"]["value"]


def unit(rng, n, *, shift=0.0):
    """Unit-norm embeddings [n, 64] of a falling spectrum, as CLAP's."""
    x = rng.standard_normal((n, 64)) / np.sqrt(np.arange(1, 65))
    x[:, 0] += 2 + shift
    return x / np.linalg.norm(x, axis=1, keepdims=True)


def test_the_floor_is_that_of_the_arms_sizes():
    """A same arm is at the floor; one KAD tells apart is above it, below that of the halves."""
    rng = np.random.default_rng(0)
    base = unit(rng, 200)
    n, recipe = 200, {"floor_splits": 40, "seed": 1, "kad_bandwidth": mmd.median_distance(base)}
    fad, kad = distances._floor(base, n, recipe=recipe)
    assert (fad["n"], fad["recipe"]["split_clips"]) == (n, [100, 100])
    same = [unit(rng, n) for _ in range(20)]
    means = [frechet.frechet_distance(x, base) for x in same]
    assert fad["value"] == pytest.approx(np.mean(means), rel=0.1)
    other = unit(rng, n, shift=0.25)
    far = frechet.frechet_distance(other, base)
    assert fad["ci_high"] < far < 2 * fad["value"]
    assert mmd.kernel_distance(other, base, bandwidth=recipe["kad_bandwidth"]) > kad["ci_high"]
    within = [kad["ci_low"] <= mmd.kernel_distance(x, base, bandwidth=recipe["kad_bandwidth"])
              <= kad["ci_high"] for x in same]  # fmt: skip
    assert np.mean(within) > 0.7


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


def test_infinity_is_below_and_says_its_line(tables, tmp_path):
    fad, _, far = run(tables, tmp_path / "fad.json")["arms"]["near"]
    assert far["value"] < fad["value"] and far["n"] == 90  # all clips of the arm
    assert far["ci_low"] < far["value"] < far["ci_high"]
    assert far["recipe"]["slope"] > 0 and far["recipe"]["r2"] > 0.8
    assert max(far["recipe"]["sizes"]) == fad["n"]


def test_verdicts_only_where_intervals_are_apart(tables, tmp_path):
    twin = draw(60, 6, seed=7, mean=0.2)
    tables["shards"]["twin"] = [write(tmp_path / "twin.parquet", twin, "d")]
    rows = run(tables, tmp_path / "fad.json")["comparisons"]
    verdict = {(r["metric"], r["arm"], r["against"]): r["verdict"] for r in rows}
    assert verdict["fad", "near", "far"] == verdict["kad", "near", "far"] == "lower"
    assert verdict["fad", "far", "twin"] == "higher"
    assert verdict["fad", "near", "twin"] == verdict["kad", "near", "twin"] == "not separable"
    for row in rows:
        assert row["ci_low"] <= row["difference"] <= row["ci_high"]


def test_arms_of_the_same_tag_sets_are_paired(tables, tmp_path):
    # The same ids in another order, clips a little farther out: the draw and resamples are shared.
    far = draw(60, 6, seed=2, mean=1)
    tables["shards"] = {
        "far": [write(tmp_path / "a.parquet", far, "c")],
        "farther": [write(tmp_path / "b.parquet", far + 0.05, "c")],
    }
    rows = run(tables, tmp_path / "fad.json")["comparisons"]
    fad = next(row for row in rows if row["metric"] == "fad")
    assert fad["ci_high"] < 0  # told apart by the paired interval
    assert fad["verdict"] == "not separable"  # but no ranking: each interval is far wider


def test_larger_arms_give_the_clips_that_all_arms_have_first():
    ids = [f"c-{i}" for i in range(40)]
    large = distances.Clips(ids, np.arange(80.0).reshape(40, 2))
    small = distances.Clips(ids[30:], np.arange(60.0, 80).reshape(10, 2))
    both = [distances._draw(c, 10, set(ids[30:]), seed=1) for c in (large, small)]
    np.testing.assert_array_equal(*both)


def test_value_is_the_plain_distance(tables, tmp_path):
    found = run(tables, tmp_path / "fad.json")["arms"]["far"][0]["value"]
    x = distances.read_clips(tables["shards"]["far"]).x
    reference = distances.read_clips([tables["reference"]]).x
    assert found == pytest.approx(frechet.frechet_distance(x, reference))
