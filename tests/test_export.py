"""The dataset table: its joins, its splits, its errors, what it carries."""

import ast
import json
from collections import Counter

import pyarrow.parquet as pq
import pytest
from dataset_run import tag_row, write_run

from conceptcaps import export, schemas
from conceptcaps.categories import TAGS_OF
from conceptcaps.errors import InputError
from conceptcaps.evidence import read_evidence
from conceptcaps.io import read_rows, write_json, write_table

SPEC = export.Spec(validation=0.15, test=0.15, licence=None)


def sets_of(rows, splits):
    found = {}
    for row, split in zip(rows, splits, strict=True):
        found.setdefault(frozenset(row["aspect_list"]), set()).add(split)
    return found


def test_every_row_has_what_belongs_to_its_id(tmp_path):
    run = write_run(tmp_path, 60, lost={"item010"})
    export.export_table(**run, spec=SPEC, seed=1)
    table = pq.read_table(run["output"])
    assert table.schema.equals(schemas.DATASET)
    rows = table.to_pylist()
    assert [row["id"] for row in rows] == [f"item{i:03d}" for i in range(60) if i != 10]
    for row in rows:
        tags = tag_row(row["id"], int(row["id"][4:]))
        assert ast.literal_eval(row["aspect_list"]) == tags["aspect_list"]
        assert all(row[column] == tags[column] for column in TAGS_OF.values())
        assert row["caption"] == f"A piece | number {int(row['id'][4:])}."
        assert row["file_name"] == f"audio/{row['id']}.flac"
        clip = (
            pq.read_table(tmp_path / row["audio_shard"]).slice(row["audio_row"], 1).to_pylist()[0]
        )
        assert clip["id"] == row["id"]
        assert clip["seed"] == row["seed"]
        assert row["duration_s"] == pytest.approx(0.5 + int(row["id"][4:]) / 100)
        assert row["provenance"] == "0123456789abcdef"


def test_the_audit_stands_beside_the_tags_and_is_null_without(tmp_path):
    run = write_run(tmp_path, 10)
    write_table(run["audit"][0], read_rows(run["audit"][0])[1:], schemas.AUDIT)
    export.export_table(**run, spec=SPEC, seed=1)
    first, second, *_ = read_rows(run["output"])
    assert first["verified"] is first["tempo_present_prob"] is None
    assert second["verified"] is False
    assert (second["tempo_present_prob"], second["mood_present_prob"]) == ([0.25], [None])
    write_table(
        run["audit"][0], [{**read_rows(run["audit"][0])[0], "id": "stranger"}], schemas.AUDIT
    )
    with pytest.raises(InputError, match="1 ids have no clip: stranger"):
        export.export_table(**run, spec=SPEC, seed=1)


def test_no_tag_set_is_in_two_splits_and_shares_are_met(tmp_path):
    run = write_run(tmp_path, 60)  # 36 distinct sets, 24 of them twice
    export.export_table(**run, spec=SPEC, seed=1)
    rows = read_rows(run["output"])
    splits = [row["split"] for row in rows]
    for row in rows:
        row["aspect_list"] = ast.literal_eval(row["aspect_list"])
    found = sets_of(rows, splits)
    assert len(found) == 36
    assert all(len(of_set) == 1 for of_set in found.values())
    counts = Counter(splits)
    assert abs(counts["validation"] - 9) <= 1
    assert abs(counts["test"] - 9) <= 1


@pytest.mark.parametrize("n", [1, 2, 7, 20, 1000, 21433])
def test_distinct_sets_are_cut_exactly(n):
    rows = [{"aspect_list": [f"tag {i}", "slow tempo"]} for i in range(n)]
    counts = Counter(export.split_rows(rows, SPEC, seed=3))
    part = round(0.15 * n)
    assert (counts["validation"], counts["test"], counts["train"]) == (part, part, n - 2 * part)
    if n == 21433:  # the published card
        assert counts == {"train": 15003, "validation": 3215, "test": 3215}


def test_order_of_tags_and_rows_does_not_matter_but_the_seed_does():
    rows = [{"aspect_list": [f"tag {i % 150}", f"mood {i % 7}"]} for i in range(400)]
    splits = export.split_rows(rows, SPEC, seed=3)
    turned = [{"aspect_list": row["aspect_list"][::-1]} for row in reversed(rows)]
    assert export.split_rows(turned, SPEC, seed=3) == splits[::-1]
    assert export.split_rows(rows, SPEC, seed=4) != splits


def test_one_tag_set_for_all_rows_is_one_split():
    splits = export.split_rows([{"aspect_list": ["jazz"]}] * 10, SPEC, seed=3)
    assert set(splits) == {"train"}


def test_duplicate_id_names_both_places(tmp_path):
    run = write_run(tmp_path, 30)
    rows = read_rows(run["captions"][1])
    write_table(run["captions"][1], [*rows, rows[0] | {"id": "item003"}], schemas.CAPTIONS)
    with pytest.raises(InputError, match=r"00001.*'item003'.*00000.*row 3"):
        export.export_table(**run, spec=SPEC, seed=1)
    assert not run["output"].exists()


@pytest.mark.parametrize(
    ("stage", "schema", "parent"),
    [("captions", schemas.CAPTIONS, "tag set"), ("audio", schemas.AUDIO, "caption")],
)
def test_orphans_are_named(tmp_path, stage, schema, parent):
    run = write_run(tmp_path, 30)
    rows = read_rows(run[stage][1])
    write_table(run[stage][1], [*rows, rows[0] | {"id": "stranger"}], schema)
    with pytest.raises(InputError, match=f"1 ids have no {parent}: stranger"):
        export.export_table(**run, spec=SPEC, seed=1)


def test_a_score_without_a_clip_is_an_orphan(tmp_path):
    run = write_run(tmp_path, 30)
    write_table(run["audio"][0], read_rows(run["audio"][0])[1:], schemas.AUDIO)
    with pytest.raises(InputError, match="1 ids have no clip: item000"):
        export.export_table(**run, spec=SPEC, seed=1)


def test_nothing_left_is_an_error(tmp_path):
    run = write_run(tmp_path, 3)
    write_table(run["clap"][0], [], schemas.CLAP)
    with pytest.raises(InputError, match="no item has tags, a caption, audio and a CLAP score"):
        export.export_table(**run, spec=SPEC, seed=1)


def test_the_table_carries_the_figures_of_the_run(tmp_path):
    run = write_run(tmp_path, 10)
    export.export_table(**run, spec=SPEC, seed=1)
    carried = json.loads(pq.read_schema(run["output"]).metadata[export.METADATA_KEY])
    assert carried["run_id"] == "0123456789abcdef"
    assert list(carried["evidence"]) == ["captioner", "fad", "gtzan", "tcav", "text", "vae"]
    for path in run["evidence"][:-1]:
        stage = path.parent.name if path.stem == "metrics" else path.stem
        content = json.loads(path.read_text().replace("NaN", "null"))
        assert carried["evidence"][stage] == content
    tcav = carried["evidence"]["tcav"]
    assert [row["concept"] for row in tcav["significant"]] == ["piano"]
    assert tcav["significant"][0]["null_sd"] is None  # NaN is not JSON
    assert tcav["pairs"] == 2
    assert tcav["controls"]["shuffled"] == {"pairs": 1, "significant": 0}
    assert tcav["controls"]["planted"] == {"pairs": 1, "significant": 1}


def test_equal_inputs_give_equal_bytes(tmp_path):
    run = write_run(tmp_path, 10)
    export.export_table(**run, spec=SPEC, seed=1)
    first = run["output"].read_bytes()
    export.export_table(**run, spec=SPEC, seed=1)
    assert run["output"].read_bytes() == first


@pytest.mark.parametrize(("validation", "test"), [(0.5, 0.5), (-0.1, 0.2)])
def test_shares_that_leave_no_training_rows_are_refused(validation, test):
    with pytest.raises(InputError, match=r"dataset\.validation"):
        export.Spec(validation=validation, test=test, licence=None)


def test_a_large_metrics_file_travels_as_its_figures(tmp_path):
    metric = {"name": "accuracy", "value": 0.5, "n": 3}
    content = {"arms": {"base": [metric]}, "floor": [metric], "history": list(range(300_000))}
    write_json(tmp_path / "scores/text.json", content)
    carried = read_evidence([tmp_path / "scores/text.json"])
    assert carried == {"text": {"arms base": [metric], "floor": [metric]}}


def test_clips_of_the_same_codes_are_found_over_shards(tmp_path, capsys):
    """Clips that were stored without codes are nobody's twins."""
    hashes = {"a": "1", "b": "2", "c": "1", "d": None, "e": None, "f": "2", "g": "1", "h": "3"}
    assert export.same_codes(hashes) == [["a", "c", "g"], ["b", "f"]]
    run = write_run(tmp_path, 40)
    for path in run["audio"]:
        rows = read_rows(path)
        twins = [row | {"codes_sha256": row["id"].replace("item039", "item003")} for row in rows]
        write_table(path, twins, schemas.AUDIO)
    export.export_table(**run, spec=SPEC, seed=1)
    assert "clips of exactly the same codes: item003, item039\n" in capsys.readouterr().out
