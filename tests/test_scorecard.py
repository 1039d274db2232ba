"""The scorecard: what is looked up, what was not run, what cannot be compared, the page."""

from pathlib import Path

import pytest
import yaml
from dataset_run import write_run

from conceptcaps import arms, export, io, schemas, scorecard
from conceptcaps.errors import InputError

CLAIMS = Path(__file__).resolve().parent.parent / "resources/scorecard.yaml"
SPEC = export.Spec(validation=0.15, test=0.15, licence=None)
CLAIM = {"where": "Table 1", "claim": "A <b>claim</b>", "paper": 0.5, "differs": "N.", "needs": {}}


def metric(value, low, high, **more):
    return {"name": "score", "value": value, "ci_low": low, "ci_high": high, "n": 60, **more}


@pytest.fixture
def run(tmp_path):
    inputs = write_run(tmp_path, 10)
    export.export_table(**inputs, spec=SPEC, seed=1)
    arms = {"conceptcaps": [metric(0.5, 0.4, 0.6)], "base": [metric(0.2, 0.15, 0.3)]}
    io.write_json(tmp_path / "scores/clap.json", {"arms": arms})
    row = dict.fromkeys(schemas.TCAV.names) | {"concept": "slow tempo", "genre": "jazz"}
    row |= {"layer": "conv4", "tcav": 0.7, "null_mean": 0.5, "effect_low": 0.1, "control": ""}
    row |= {"effect_high": 0.3, "significant": False, "n_class": 20, "cosine_share": 0.9}
    rows = [row | {"layer": "conv1", "tcav": 0.1}, row, row | {"control": "shuffled", "tcav": 0.0}]
    io.write_table(tmp_path / "tcav.parquet", rows, schemas.TCAV)
    io.write_table(tmp_path / "pairs.parquet", [{"id": "a"}, {"id": "b"}], schemas.PAIRS)
    return {
        "claims": tmp_path / "claims.yaml",
        "evidence": [tmp_path / "scores/clap.json"],
        "tcav": tmp_path / "tcav.parquet",
        "dataset": inputs["output"],
        "pairs": tmp_path / "pairs.parquet",
        "config": tmp_path / "run/config.yaml",
        "provenance": inputs["provenance"],
        "output": tmp_path / "scorecard.json",
        "page": tmp_path / "scorecard.html",
    }


def fill(run, *claims):
    run["claims"].write_text(yaml.safe_dump([CLAIM | claim for claim in claims]))
    scorecard.write(**run)
    return io.read_json(run["output"])["claims"]


def test_figures_of_arms_and_their_differences(run):
    ours = {"stage": "clap", "name": "score", "arm": "conceptcaps"}
    (claim,) = fill(run, {"protocol": ours, "right": ours | {"minus": "base"}})
    assert (claim["protocol"]["value"], claim["protocol"]["n"]) == (0.5, 60)
    assert claim["right"]["value"] == pytest.approx(0.3)
    # The widest interval that two intervals leave.
    assert claim["right"]["ci_low"] == pytest.approx(0.1)
    assert claim["right"]["ci_high"] == pytest.approx(0.45)


def test_figures_that_their_recipe_calls_unreliable_say_so(run):
    shaky = metric(0.5, 0.4, 0.6) | {"recipe": {"reliability": "unreliable"}}
    io.write_json(run["evidence"][0], {"arms": {"conceptcaps": [shaky]}})
    ours = {"stage": "clap", "name": "score", "arm": "conceptcaps"}
    (claim,) = fill(run, {"protocol": {"none": ""}, "right": ours})
    assert claim["right"]["what"] == "score (clap, conceptcaps), unreliable at this N"
    assert "unreliable at this N" in run["page"].read_text()


def test_cells_of_the_last_layer_and_counts_of_the_dataset(run):
    cell = {"concept": "slow tempo", "genre": "jazz"}
    tcav, counted = fill(
        run,
        {"protocol": cell | {"tcav": "cosine_share"}, "right": cell | {"tcav": "tcav"}},
        {"protocol": {"count": "words"}, "right": {"count": "pairs"}},
    )
    assert (tcav["protocol"]["value"], tcav["protocol"]["ci_low"]) == (0.9, None)
    assert (tcav["right"]["value"], tcav["right"]["n"]) == (0.7, 20)
    assert (tcav["right"]["ci_low"], tcav["right"]["ci_high"]) == pytest.approx((0.6, 0.8))
    assert tcav["right"]["what"] == "tcav at conv4, not significant"
    assert (counted["protocol"]["value"], counted["right"]["value"]) == (5, 2)


def test_every_arm_that_a_claim_names_can_be_run():
    claims = yaml.safe_load(CLAIMS.read_text())
    sides = [claim[side] for claim in claims for side in ("protocol", "right")]
    named = {side[key] for side in sides for key in ("arm", "minus") if key in side}
    assert "lp_musiccaps_writing" in named
    assert named <= set(arms.SOURCE) | {"shuffled"}


def test_what_was_not_run_says_so_and_why(run):
    absent = {"stage": "clap", "name": "score", "arm": "lp_musiccaps"}
    untested = {"tcav": "tcav", "concept": "piano", "genre": "jazz"}
    first, second = fill(
        run,
        {"protocol": {"none": "a picture"}, "right": absent},
        {"protocol": absent | {"stage": "fad"}, "right": untested},
    )
    assert first["protocol"] == {"status": "not run", "why": "a picture"}
    assert "score (clap, lp_musiccaps)" in first["right"]["why"]
    assert [second[side]["status"] for side in ("protocol", "right")] == ["not run"] * 2
    page = run["page"].read_text()
    assert "not run: a picture" in page and "&lt;b&gt;claim" in page


def test_other_models_than_the_papers_are_named(run):
    needs = {"audio.model": "facebook/musicgen-large", "audio.revision": "other"}
    (claim,) = fill(run, {"protocol": {"none": ""}, "right": {"count": "clips"}, "needs": needs})
    assert claim["unlike"] == {"audio.revision": "main"}
    assert "<b>10*</b>" in run["page"].read_text()


def test_claims_that_are_not_well_formed_are_refused(run):
    with pytest.raises(InputError, match="claim 0 lacks or has too much: protocol"):
        fill(run, {"right": {"none": ""}})
    with pytest.raises(InputError, match="claim 0: a figure needs one of"):
        fill(run, {"protocol": {"stag": "clap"}, "right": {"none": ""}})


def test_the_projects_own_list_covers_both_tables_and_five_figures(run, request):
    run["claims"] = request.config.rootpath / "resources/scorecard.yaml"
    scorecard_of = yaml.safe_load(run["claims"].read_text())
    wheres = " ".join(claim["where"] for claim in scorecard_of)
    needed = ("Table 1", "Table 2", *(f"Figure {k}" for k in range(2, 7)))
    assert all(name in wheres for name in needed)
    config = yaml.safe_load((request.config.rootpath / "config.yaml").read_text())
    for claim in scorecard_of:
        for key, wanted in claim["needs"].items():
            assert scorecard._at(config, key) == wanted  # config.yaml is the paper's scale
