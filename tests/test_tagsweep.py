"""The choice of the tag model's beta and crossover."""

import dataclasses

import pytest
from test_vae import CATEGORIES, SPEC, planted

from conceptcaps import tagmetrics, tagsweep
from conceptcaps.errors import InputError
from conceptcaps.io import read_json, read_rows, write_json, write_table
from conceptcaps.schemas import PAIRS

BARS = {"heldout_jaccard": [0.8, None], "prior_c2st_auc": [None, 0.6]}


def run_of(jaccard, auc, likelihood):
    return {
        "heldout_jaccard": jaccard,
        "prior_c2st_auc": auc,
        "heldout_log_likelihood": likelihood,
    }


def test_the_likeliest_run_that_keeps_every_bar_is_chosen():
    runs = [run_of(0.9, 0.5, -40), run_of(0.85, 0.55, -30), run_of(0.7, 0.5, -20)]
    assert tagsweep.choose(runs, BARS) == 1
    assert [tagsweep.holds(run, BARS) for run in runs] == [True, True, False]
    runs = [run_of(0.7, 0.7, -10), run_of(0.85, 0.7, -30), run_of(0.7, 0.5, -20)]
    assert tagsweep.choose(runs, BARS) == 2  # none keeps both: one of two, and the likelier


def sweep(directory, rows):
    write_table(directory / "pairs.parquet", rows, PAIRS)
    write_json(directory / "taxonomy.json", CATEGORIES)
    tagsweep.sweep(
        pairs=directory / "pairs.parquet",
        taxonomy=directory / "taxonomy.json",
        taxonomy_file=directory / "taxonomy.json",
        base={
            key: value
            for key, value in dataclasses.asdict(dataclasses.replace(SPEC, epochs=15)).items()
            if key not in ("beta", "crossover")
        },
        prior="aggregate",
        spec=tagsweep.Spec(beta=(0.1, 20.0), crossover=(0.0,), bars=BARS),
        limits={"min_categories": 3, "max_tags": 8},
        seed=3,
        table=directory / "sweep.parquet",
        metrics=directory / "sweep.json",
    )
    return read_rows(directory / "sweep.parquet")


def test_a_sweep_measures_validation_rows_alone(tmp_path, monkeypatch):
    monkeypatch.setattr(tagmetrics, "N_SAMPLES", 1000)
    rows = [r | {"split": ("train", "validation", "test")[int(r["id"]) % 3]} for r in planted(300)]
    found = sweep(tmp_path, rows)
    assert [run["beta"] for run in found] == [0.1, 20.0]
    assert [run["chosen"] for run in found] == [True, False]  # beta 20 collapses
    other = [row for row in rows if row["split"] != "test"]
    other += [row | {"aspect_list": ["g0", "m2"]} for row in rows if row["split"] == "test"]
    assert sweep(tmp_path, other) == found
    told = read_json(tmp_path / "sweep.json")
    assert told["runs"][0]["chosen"] and all(m["n"] for m in told["metrics"])
    with pytest.raises(InputError, match="no validation rows"):
        sweep(tmp_path, [row for row in rows if row["split"] != "validation"])
