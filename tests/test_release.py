"""What travels in the hub folder beside the data: metadata, sums, licence, leakage, examples."""

import json
import os
import re
import subprocess
import sys
from dataclasses import replace

import duckdb
import pandas
import polars
import pyarrow.parquet as pq
import pytest
import yaml
from dataset_run import SETTINGS
from test_hub import AUDIO_CONFIGS, SPEC, TEXT_CONFIGS, make

from conceptcaps import croissant, leakage, licences, usage
from conceptcaps.card import caption
from conceptcaps.errors import InputError
from conceptcaps.hubfields import AUDIO_FIELDS, TEXT_FIELDS
from conceptcaps.io import read_json, read_rows

DERIVED = replace(SPEC, licence=None)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return make(tmp_path_factory.mktemp("release"), 60, DERIVED)[0]


def test_the_examples_of_the_card_run_as_they_stand(folder, tmp_path):
    examples = re.findall(r"```python\n(.*?)```", (folder / "README.md").read_text(), re.DOTALL)
    assert len(examples) == 7
    (tmp_path / "card.py").write_text("\n".join(examples) + "\nprint('the end')\n")
    done = subprocess.run(
        [sys.executable, tmp_path / "card.py"],
        cwd=folder,
        env=os.environ | {"HF_HOME": str(tmp_path), "HF_HUB_OFFLINE": "1"},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("A piece | number")
    assert "('validation', 9," in done.stdout and done.stdout.endswith("the end\n")


@pytest.mark.parametrize("config", TEXT_CONFIGS + AUDIO_CONFIGS)
def test_pandas_polars_and_duckdb_read_every_config(folder, config):
    path = folder / "data" / config
    ids = sorted(pandas.read_parquet(path)["id"])
    assert sorted(polars.read_parquet(path / "*.parquet")["id"]) == ids
    query = f"select id, genre_aspects[1], split from '{path}/*.parquet' order by id"
    rows = duckdb.sql(query).fetchall()
    assert [row[0] for row in rows] == ids
    assert {row[1] for row in rows} <= {"jazz", "rock", "techno"}
    assert {row[2] for row in rows} == {"train", "validation", "test"}


def test_croissant_is_valid_and_its_records_are_the_rows(folder):
    data = croissant.check(folder)
    assert {records.id for records in data.metadata.record_sets} == {
        *TEXT_CONFIGS,
        *AUDIO_CONFIGS,
    }
    rows = {row["id"]: row for row in read_rows(*folder.glob("data/10pct-audio/train-*"))}
    records = [r for r in data.records("10pct-audio") if r["10pct-audio/split"] == b"train"]
    assert len(records) == len(rows)
    for record in records:
        row = rows[record["10pct-audio/id"].decode()]
        assert record.keys() == {f"10pct-audio/{field.name}" for field in AUDIO_FIELDS}
        assert record["10pct-audio/caption"].decode() == row["caption"]
        assert [t.decode() for t in record["10pct-audio/mood_aspects"]] == row["mood_aspects"]
        assert record["10pct-audio/file_name"] == row["file_name"]["bytes"]
        assert record["10pct-audio/seed"] == row["seed"]
        assert record["10pct-audio/verified"] == row["verified"]
    listed = read_json(folder / "croissant.json")["distribution"]
    files = {entry["@id"]: entry for entry in listed if entry["@type"] == "cr:FileObject"}
    assert files.keys() == {
        path.relative_to(folder).as_posix() for path in folder.rglob("*.parquet")
    }


def test_croissant_finds_a_changed_file_and_bad_metadata(folder, tmp_path):
    content = read_json(folder / "croissant.json")
    del content["recordSet"][0]["field"][0]["source"]["fileSet"]
    (tmp_path / "croissant.json").write_text(json.dumps(content))
    with pytest.raises(InputError, match=r"croissant\.json"):
        croissant.check(tmp_path)


def test_the_sums_are_those_of_every_file(folder):
    done = subprocess.run(
        ["sha256sum", "--check", "--strict", "SHA256SUMS"], cwd=folder, capture_output=True
    )
    assert done.returncode == 0, done.stdout
    lines = (folder / "SHA256SUMS").read_text().splitlines()
    assert len(lines) + 1 == sum(path.is_file() for path in folder.rglob("*"))
    told = {line.split("  ")[1]: line.split("  ")[0] for line in lines}
    for entry in read_json(folder / "croissant.json")["distribution"]:
        if entry["@type"] == "cr:FileObject":
            assert entry["sha256"] == told[entry["@id"]]


def test_datasheet_and_citation_tell_the_build(folder):
    sheet = (folder / "DATASHEET.md").read_text()
    assert "10 of 70 tag sets have no row" in sheet
    assert "42 train, 9 validation, 9 test" in sheet
    assert "verified 30 of 60 clips" in sheet
    citation = yaml.safe_load((folder / "CITATION.cff").read_text())
    assert (citation["title"], citation["version"]) == ("ConceptCaps", "1.2.3")


def test_every_column_is_in_the_folder_and_on_the_card(folder):
    card = (folder / "README.md").read_text()
    names = pq.read_schema(next(folder.glob("data/audio/train-*"))).names
    assert names == [field.name for field in AUDIO_FIELDS]
    assert all(f"| `{name}` | " in card for name in names)
    assert pq.read_schema(next(folder.glob("data/default/train-*"))).names == [
        field.name for field in TEXT_FIELDS
    ]
    row = read_rows(next(folder.glob("data/audio/train-*")))[0]
    assert (row["caption_model"], row["audio_model"]) == ("writer@1", "tone@1")


def test_the_card_shows_the_figures_with_the_runs_settings(folder):
    card = (folder / "README.md").read_text()
    assert "![tags](figures/tags.png)\n\nOf `7,000` sets." in card
    assert (folder / "figures/tags.png").read_bytes() == b"a picture"
    assert (folder / "figures/tags.svg").is_file()


def test_every_caption_of_the_report_can_be_filled_in():
    from test_reruns import ROOT, merged

    for template in sorted((ROOT / "workflow/report").glob("*.rst")):
        said = caption(template, merged())
        assert "{" not in said and len(said) > 50, template


def test_the_licence_is_derived_and_said(folder):
    card = (folder / "README.md").read_text()
    assert "license: cc-by-nc-sa-4.0" in card
    assert "No commercial use: the clips come from facebook/musicgen-large" in card
    assert "Share alike: the tags and captions" in card
    assert "must carry 'Llama'" in card
    rows = read_rows(next(folder.glob("data/default/train-*")))
    assert {row["licence"] for row in rows} == {"cc-by-nc-sa-4.0"}


def settings_with(tmp_path, *, source="hub", model="mit"):
    """Return settings whose captioner and music model are local, under a licence or without."""
    directory = tmp_path / "model"
    directory.mkdir(exist_ok=True)
    if model:
        (directory / "README.md").write_text(f"---\nlicense: {model}\n---\n\n# A model\n")
    local = {"model": str(directory), "revision": None}
    settings = json.loads(json.dumps(SETTINGS))
    settings["captioner"]["base"] |= local
    settings["audio"] |= local
    settings["sources"]["musiccaps"]["kind"] = source
    return settings


@pytest.mark.parametrize(
    ("source", "model", "licence", "said"),
    [
        ("hub", "mit", "cc-by-sa-4.0", "it is a no-NC build"),
        ("file", "mit", "cc-by-sa-4.0", "it is a no-NC build"),
        ("synthetic", "mit", "cc-by-4.0", "it is a no-NC build"),
        ("synthetic", "cc-by-nc-4.0", "cc-by-nc-4.0", "No commercial use: the captions and clips"),
        ("synthetic", "[cc-by-nc-4.0]", "cc-by-nc-4.0", "No commercial use"),
        ("synthetic", None, "other", "is not known here"),
        ("hub", None, "other", "is not known here"),
        ("hub", "other", "other", "is not known here"),
        ("hub", "gpl-3.0", "other", "(gpl-3.0) before you use"),
        ("hub", "cc-by-nd-4.0", "other", "(cc-by-nd-4.0) before you use"),
        ("hub", "cc-by-nc-nd-4.0", "other", "No commercial use: the captions and clips"),
        ("hub", "cc-by-nc-2.0", "cc-by-nc-sa-4.0", "No commercial use"),
        ("synthetic", "cc-by-sa-3.0", "cc-by-sa-4.0", "(cc-by-sa-3.0); tags and captions"),
    ],
)
def test_licences_follow_from_what_went_in(tmp_path, source, model, licence, said):
    settings = settings_with(tmp_path, source=source, model=model)
    assert licences.dataset_licence(settings, None) == licence
    terms = " ".join(licences.terms_of(licences.sources(settings), licence))
    assert said in terms and f"`{licence}`" in terms
    assert ("Share alike" in terms) == (source != "synthetic" or "-sa" in str(model))
    assert ("no-NC build" in terms) == ("-nc" not in licence and licence != "other")


@pytest.mark.parametrize(
    ("wanted", "model", "refused"),
    [
        ("cc-by-4.0", "cc-by-nc-4.0", "allows commercial use"),
        ("mit", "cc-by-nc-nd-4.0", "allows commercial use.*cc-by-nc-nd-4.0"),
        ("cc-by-nc-4.0", "mit", "allows other terms for adaptations.*cc-by-sa-4.0"),
        ("cc-by-nc-sa-4.0", "cc-by-nc-2.0", None),
        ("other", "cc-by-nc-4.0", None),
    ],
)
def test_a_licence_that_a_source_forbids_is_refused(tmp_path, wanted, model, refused):
    settings = settings_with(tmp_path, model=model)
    if refused is None:
        assert licences.dataset_licence(settings, wanted) == wanted
        return
    with pytest.raises(InputError, match=refused):
        licences.dataset_licence(settings, wanted)


def test_a_model_card_that_cannot_be_read_is_named(tmp_path):
    settings = settings_with(tmp_path)
    (tmp_path / "model/README.md").write_text("---\nlicense: [\n---\n")
    with pytest.raises(InputError, match="front matter is not YAML"):
        licences.dataset_licence(settings, None)


def test_the_cards_examples_name_subsets_that_are_there():
    counts = {"default": {"train": 70}, "5pct": {"train": 3}, "half": {"train": 35}}
    assert 'load_dataset(folder, "5pct")' in usage.usage(counts)
    assert '"data/5pct-audio"' in usage.usage(counts)
    alone = usage.usage({"default": {"train": 70}})
    assert 'load_dataset(folder, "audio")' in alone and '"data/audio"' in alone


def test_leakage_is_counted():
    splits = ["train"] * 3 + ["validation"] * 2 + ["test"]
    tags = [["a", "b", "c", "d"], ["e", "f"], ["a"], ["a", "b", "c"], ["x", "y"], ["f", "e", "g"]]
    captions = ["one", "two", "three", "one", "four", "five"]
    report = leakage.leakage(splits=splits, tag_sets=tags, captions=captions)
    assert report["rows"] == {"train": 3, "validation": 2, "test": 1}
    assert report["shared"]["train, validation"] == {"tag_sets": 0, "captions": 1}
    nearest = report["nearest_training_set"]
    assert nearest["validation"]["mean"] == pytest.approx((3 / 4 + 0) / 2)
    assert nearest["validation"]["share_at_least"] == {"0.9": 0, "0.8": 0, "0.7": 0.5}
    assert nearest["test"]["largest"] == pytest.approx(2 / 3)
    assert report["tags_without_training_rows"] == {"validation": ["x", "y"], "test": ["g"]}


def test_a_tag_set_in_two_splits_is_refused():
    with pytest.raises(InputError, match="the splits train, test share 1 tag sets"):
        leakage.leakage(splits=["train", "test"], tag_sets=[["a", "b"], ["b", "a"]], captions="xy")


def test_a_run_without_audit_says_so(tmp_path):
    from dataset_run import write_run
    from test_hub import folder_of

    from conceptcaps import export

    run = write_run(tmp_path, 10) | {"audit": []}
    export.export_table(**run, spec=export.Spec(validation=0.2, test=0.2, licence=None), seed=1)
    folder = folder_of(tmp_path, run, DERIVED)
    assert "The concept audit did not run" in (folder / "README.md").read_text()
    rows = read_rows(next(folder.glob("data/default/train-*")))
    assert {row["verified"] for row in rows} == {None}
