import numpy as np
import pytest

from conceptcaps.io import read_json
from conceptcaps.results import MetricResult, bootstrap_mean, share, versions, wilson, write_metrics
from conceptcaps.seeding import item_rng, item_seed


def test_bootstrap_interval_covers_the_mean_about_as_often_as_it_says():
    rng = np.random.default_rng(0)
    covered = 0
    for seed in range(200):
        mean, low, high = bootstrap_mean(rng.normal(3, 1, 60), n_boot=300, seed=seed)
        assert low <= mean <= high
        covered += low <= 3 <= high
    assert 0.88 <= covered / 200 <= 0.99


def test_bootstrap_of_a_constant():
    assert bootstrap_mean([2.0] * 5) == (2.0, 2.0, 2.0)


def test_wilson_interval_against_a_published_value():
    found = wilson(81, 263)  # Newcombe 1998, table I
    assert [round(x, 4) for x in found] == [0.3080, 0.2553, 0.3662]
    assert wilson(10, 10)[2] == pytest.approx(1.0)


def test_rare_shares_have_intervals_that_hold_the_truth():
    rng, p, n = np.random.default_rng(0), 1 / 1024, 1024
    covered = [low <= p <= high for _, low, high in map(share, rng.random((400, n)) < p)]
    assert np.mean(covered) > 0.9
    assert share([False] * 10)[2] > 0.2


def test_metrics_file_is_sorted_and_whole(tmp_path):
    result = MetricResult("m", 0.5, None, None, 3, "higher", versions("numpy"))
    write_metrics(tmp_path / "m.json", [result], classes=["a"])
    content = read_json(tmp_path / "m.json")
    assert content["classes"] == ["a"] and content["metrics"][0]["recipe"]["numpy"]
    assert (tmp_path / "m.json").read_text().index('"classes"') < 10


def test_item_seeds_depend_on_all_three_and_on_nothing_else():
    base = item_seed(1, "audio", "x")
    assert base == item_seed(1, "audio", "x")
    others = [item_seed(2, "audio", "x"), item_seed(1, "tags", "x"), item_seed(1, "audio", "y")]
    assert len({base, *others}) == 4
    assert 0 <= base < 2**63
    assert item_seed(1, "a", "bc") != item_seed(1, "ab", "c")
    assert item_rng(1, "audio", "x").random() == np.random.default_rng(base).random()


def test_item_seeds_are_spread():
    bits = np.array([item_seed(0, "s", str(i)) & 1 for i in range(4000)])
    assert bits.mean() == pytest.approx(0.5, abs=0.03)
