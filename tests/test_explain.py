"""One clip's history, and two runs' figures side by side, on the tables of a tiny run."""

import json
import math
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from dataset_run import tag_row, write_run

from conceptcaps import diff, explain, export
from conceptcaps.errors import InputError
from conceptcaps.io import read_json, write_json, write_table
from conceptcaps.schemas import DRAFTS, LEDGER, PAIRS

ROOT = Path(__file__).resolve().parent.parent


def draft(attempt, status, reason):
    row = {"id": "item003", "attempt": attempt, "caption": f"Draft {attempt}.", "n_tokens": 3}
    return row | {"seed": attempt, "status": status, "reason": reason, "tag_recall": 0.5}


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    root = tmp_path_factory.mktemp("run")
    inputs = write_run(root, 40, lost={"item010"})
    spec = export.Spec(validation=0.15, test=0.15, licence=None)
    export.export_table(**inputs, spec=spec, seed=1)
    pairs = [
        {**tag_row(f"pair{i}", i), "ytid": f"yt{i}", "caption": "c", "split": "train"}
        for i in (3, 30, 8)
    ]
    pairs[0]["aspect_list"] = [*pairs[0]["aspect_list"], "harp"]
    write_table(
        root / "distill/pairs.parquet", [{k: r[k] for k in PAIRS.names} for r in pairs], PAIRS
    )
    drafts = [draft(0, "missing_tags", "not named: piano"), draft(1, "ok", "")]
    write_table(root / "captions/conceptcaps/drafts/00000.parquet", drafts, DRAFTS)
    lost = [{"id": "item010", "status": "silent", "reason": "-71 dBFS"}]
    write_table(root / "audio/conceptcaps/ledger/00000.parquet", lost, LEDGER)
    record = {"run_id": "0123456789abcdef", "seed": 7, "code": {"commit": "c0ffee", "dirty": True}}
    model = {"id": "facebook/musicgen-large", "revision": "main", "resolved_commit": "beef"}
    write_json(root / "run/provenance.json", {**record, "models": {"audio": model}})
    return root


def test_the_history_goes_through_every_stage(run):
    found = explain.explain(run, "item003")
    assert found["outcome"] == "in the dataset"
    assert found["tags"]["aspect_list"] == tag_row("item003", 3)["aspect_list"]
    assert found["caption"]["model"] == "writer@1" and found["caption"]["seed"] == 3
    assert [d["status"] for d in found["drafts"]] == ["missing_tags", "ok"]
    assert found["audio"]["seed"] == 2**63 + 3
    assert found["scores"]["clap_score"] == pytest.approx(0.03)
    assert found["dataset"]["split"] in ("train", "validation", "test")
    assert found["run"]["models"]["audio"]["resolved_commit"] == "beef"
    assert found["nearest"][0]["ytid"] == "yt3"
    assert found["nearest"][0]["jaccard"] == pytest.approx(4 / 5)
    shares = [row["jaccard"] for row in found["nearest"]]
    assert shares == sorted(shares, reverse=True)
    said = explain.page(found)
    for text in ("draft 0: missing_tags, not named: piano (it names 50 % of the tags)",
                 "0.80 yt3 (train)", "A piece | number 3", "tag is heard: ",
                 found["audio"]["sha256"], f"split: {found['dataset']['split']}",
                 "run 0123456789abcdef", "c0ffee with changes", "verified: False"):  # fmt: skip
        assert text in said, text


def test_a_lost_item_says_where_and_why(run):
    found = explain.explain(run, "item010")
    assert found["outcome"] == "lost in audio: silent, -71 dBFS"
    assert found["audio"] is None and found["dataset"] is None
    assert "3. clip: played from the caption\n   none" in explain.page(found)


def test_every_clip_of_a_later_shard_is_found(run):
    assert explain.explain(run, "item039")["caption"]["caption"] == "A piece | number 39."


@pytest.mark.parametrize(
    ("item", "message"),
    [
        ("item0", "40 ids in .* begin so"),
        ("itme003", "no such id in .*Did you mean 'item0"),
        ("", "no such id"),
    ],
)
def test_an_id_that_is_not_one_is_named(run, item, message):
    with pytest.raises(InputError, match=message):
        explain.explain(run, item)


def command(module, *arguments):
    return subprocess.run(
        [sys.executable, "-m", f"conceptcaps.{module}", *map(str, arguments)],
        cwd=ROOT / "workflow/scripts",
        capture_output=True,
        text=True,
    )


def test_the_command_prints_json_or_one_line_of_what_is_wrong(run):
    done = command("explain", "item003", "--results", run, "--json")
    assert json.loads(done.stdout)["id"] == "item003"
    done = command("explain", "item003", "--results", run / "none")
    assert done.returncode == 1 and done.stderr.startswith("error: ")
    assert done.stderr.count("\n") == 1 and "--results" in done.stderr


def metric(name, value, half, *, direction="higher", **recipe):
    low, high = (None, None) if half is None else (value - half, value + half)
    return {"name": name, "value": value, "ci_low": low, "ci_high": high, "n": 9,
            "direction": direction, "recipe": {"seed": 1, **recipe}}  # fmt: skip


@pytest.fixture
def two_runs(tmp_path):
    figures = {
        "a": [metric("up", 0.5, 0.03), metric("down", 2.0, 0.1, direction="lower"),
              metric("near", 0.5, 0.3), metric("model", 1.0, 0.1, model="x"),
              metric("bare", 1.0, None), metric("same", 0.25, 0.1), metric("gone", 1.0, 0.1)],
        "b": [metric("up", 0.6, 0.04), metric("down", 3.0, 0.1, direction="lower"),
              metric("near", 0.6, 0.4), metric("model", 2.0, 0.1, model="y"),
              metric("bare", 2.0, None), metric("same", 0.25, 0.1), metric("new", 1.0, 0.1)],
    }  # fmt: skip
    for name, metrics in figures.items():
        write_json(tmp_path / name / "scores/text.json", {"arms": {"base": metrics}})
        (tmp_path / name / "run").mkdir()
        (tmp_path / name / "run/config.yaml").write_text(f"audio: {{top_k: 5, name: {name}}}\n")
    return tmp_path / "a", tmp_path / "b"


def test_differences_have_intervals_and_a_verdict(two_runs):
    found = diff.diff(*two_runs)
    rows = {row["name"]: row for row in found["figures"]}
    assert {name: row["verdict"] for name, row in rows.items()} == {
        "up": "better",
        "down": "worse",
        "near": "not told apart",
        "model": "not comparable",
        "bare": "no interval",
        "same": "equal",
    }
    assert rows["up"]["difference"] == pytest.approx(0.1)
    assert rows["up"]["ci_low"] == pytest.approx(0.1 - math.hypot(0.03, 0.04))
    assert rows["model"]["recipe"] == ["model"]
    assert found["only_in_a"] == ["text base gone"] and found["only_in_b"] == ["text base new"]
    assert found["settings"] == [{"key": "audio.name", "a": "a", "b": "b"}]
    said = diff.page(found, *two_runs, everything=False)
    assert "setting audio.name: a -> b" in said and "1 figures are equal" in said
    assert "text base same" not in said
    assert "text base same" in diff.page(found, *two_runs, everything=True)


def test_other_tags_make_nothing_better(two_runs):
    settings = yaml.safe_load((two_runs[1] / "run/config.yaml").read_text())
    settings["distill"] = {"taxonomy": "mine.yaml"}
    (two_runs[1] / "run/config.yaml").write_text(yaml.safe_dump(settings))
    rows = {row["name"]: row["verdict"] for row in diff.diff(*two_runs)["figures"]}
    assert (rows["up"], rows["down"]) == ("higher", "higher")


def test_figures_that_n_moves_are_compared_at_equal_n_only():
    few, many = ({"value": 0.5, "n": n, "direction": "higher"} for n in (40, 120))
    row = diff._compared(("text", "base", "mauve"), few, many, True)
    assert (row["verdict"], row["recipe"]) == ("not comparable", ["n"])
    assert diff._compared(("text", "base", "bleu1"), few, many, True)["verdict"] == "equal"


def test_tcav_is_compared_by_its_share_of_significant_cells(run):
    found = diff.diff(run, run)
    rows = {(row["stage"], row["group"]): row for row in found["figures"]}
    assert rows["tcav", "concepts"]["a"] == 0.5
    assert rows["tcav", "planted"]["a"] == 1.0
    assert {row["verdict"] for row in found["figures"]} <= {"equal", "not defined"}


def test_a_directory_that_is_no_run_is_named(tmp_path, two_runs):
    with pytest.raises(InputError, match="there are no figures of a run"):
        diff.diff(two_runs[0], tmp_path / "nowhere")
    done = command("diff", *two_runs, "--json")
    assert len(json.loads(done.stdout)["figures"]) == 6, done.stderr
    assert read_json(two_runs[0] / "scores/text.json")["arms"]["base"][0]["name"] == "up"
