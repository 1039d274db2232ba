"""The hub folder, read back by the datasets library without network."""

import hashlib
import io
import json
import re
import shutil
from collections import Counter
from dataclasses import replace

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import soundfile as sf
from dataset_run import SETTINGS, write_run
from datasets import Audio, List, Value, load_dataset
from datasets.utils.metadata import MetadataConfigs
from huggingface_hub import DatasetCard

from conceptcaps import card, export, hub
from conceptcaps.categories import TAGS_OF
from conceptcaps.errors import InputError
from conceptcaps.io import read_rows, write_table
from conceptcaps.schemas import AUDIO

SPEC = hub.Spec(
    name="ConceptCaps",
    version="1.2.3",
    subsets={"25pct": 0.25, "10pct": 0.1},
    max_shard_mb=500,
    licence="cc-by-nc-sa-4.0",
)
TEXT_CONFIGS = ("default", "25pct", "10pct")
AUDIO_CONFIGS = ("audio", "25pct-audio", "10pct-audio")


def make(root, n, spec=SPEC, settings=SETTINGS):
    run = write_run(root, n, settings=settings)
    spec_of_table = export.Spec(validation=0.15, test=0.15, licence=None)
    export.export_table(**run, spec=spec_of_table, seed=1)
    return folder_of(root, run, spec), run


def folder_of(root, run, spec=SPEC):
    hub.export_hub(
        dataset=run["output"],
        audio=run["audio"],
        evidence=run["evidence"],
        figures=[root / "figures/tags.png"],
        captions=[root / "figures/tags.rst"],
        config=run["config"],
        provenance=run["provenance"],
        spec=spec,
        output=root / "hub",
    )
    return root / "hub"


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    root = tmp_path_factory.mktemp("run")
    folder, run = make(root, 60)
    return folder, read_rows(run["output"])


@pytest.fixture(scope="module")
def loaded(made, tmp_path_factory):
    cache = tmp_path_factory.mktemp("cache")
    return {
        name: load_dataset(str(made[0]), name, cache_dir=str(cache))
        for name in TEXT_CONFIGS + AUDIO_CONFIGS
    }


@pytest.mark.parametrize("name", TEXT_CONFIGS + AUDIO_CONFIGS)
def test_fields_and_types_are_the_cards(loaded, name):
    strings = List(Value("string"))
    fields = {
        "id": Value("string"),
        "caption": Value("string"),
        "aspect_list": Value("string"),
        "genre_aspects": strings,
        "mood_aspects": strings,
        "instrument_aspects": strings,
        "tempo_aspects": strings,
    }
    if name in AUDIO_CONFIGS:
        fields["file_name"] = Audio()
    fields |= {"split": Value("string"), "clap_score": Value("float64")}
    for category in ("genre", "mood", "instrument", "tempo"):
        fields[f"{category}_present_prob"] = List(Value("float32"))
    fields |= {"verified": Value("bool"), "seed": Value("uint64"), "duration_s": Value("float64")}
    models = ("caption_model", "audio_model", "licence", "provenance")
    fields |= dict.fromkeys(models, Value("string"))
    if name in AUDIO_CONFIGS:
        fields |= {"codes": Value("binary"), "codebooks": Value("int16")}
    assert list(loaded[name]) == ["train", "validation", "test"]
    for split in loaded[name].values():
        assert dict(split.features) == fields
        assert list(split.features) == list(fields)


def test_rows_are_those_of_the_table(made, loaded):
    expected = {row["id"]: row for row in made[1]}
    seen = Counter()
    for split, data in loaded["default"].items():
        for row in data:
            source = expected[row["id"]]
            assert source["split"] == split
            assert all(source[name] == value for name, value in row.items())
            seen[row["id"]] += 1
    assert seen == Counter(expected.keys())


def test_subsets_are_nested_in_every_split(loaded):
    for split in ("train", "validation", "test"):
        whole, quarter, tenth = (set(loaded[name][split]["id"]) for name in TEXT_CONFIGS)
        assert tenth <= quarter <= whole
        assert len(quarter) == int(len(whole) * 0.25)
        assert len(tenth) == max(1, int(len(whole) * 0.1))


def test_subset_sizes_match_the_published_card():
    import numpy as np

    splits = np.array(["train"] * 15003 + ["validation"] * 3215 + ["test"] * 3215)
    names = [str(i) for i in range(len(splits))]
    for share, sizes in ((0.25, (3750, 803, 803)), (0.1, (1500, 321, 321))):
        chosen = hub.subset(names, splits, share)
        assert tuple((chosen & (splits == split)).sum() for split in hub.SPLITS) == sizes


@pytest.mark.parametrize(("text", "audio"), zip(TEXT_CONFIGS, AUDIO_CONFIGS, strict=True))
def test_audio_configs_hold_the_same_rows_and_decode(loaded, text, audio):
    for split, data in loaded[audio].items():
        assert data["id"] == loaded[text][split]["id"]
        for row in data.cast_column("file_name", Audio(decode=False)):
            wave, rate = sf.read(io.BytesIO(row["file_name"]["bytes"]))
            assert len(wave) / rate == pytest.approx(row["duration_s"])
            assert row["duration_s"] == pytest.approx(0.5 + int(row["id"][4:]) / 100)
            assert row["file_name"]["path"] == f"audio/{row['id']}.flac"


def test_bytes_are_those_of_the_audio_tables(tmp_path, loaded, made):
    root = made[0].parent
    hashes = {
        row["id"]: row["sha256"]
        for path in sorted((root / "audio/conceptcaps").glob("*.parquet"))
        for row in read_rows(path, ["id", "sha256"])
    }
    for data in loaded["audio"].values():
        for row in data.cast_column("file_name", Audio(decode=False)):
            assert hashlib.sha256(row["file_name"]["bytes"]).hexdigest() == hashes[row["id"]]


@pytest.mark.parametrize("n", [1, 3])
def test_empty_splits_are_left_out_and_the_rest_loads(tmp_path, n):
    folder, _ = make(tmp_path, n)
    for name in TEXT_CONFIGS + AUDIO_CONFIGS:
        data = load_dataset(str(folder), name, cache_dir=str(tmp_path / "cache"))
        assert {split: len(rows) for split, rows in data.items()} == {
            "train": n if name in ("default", "audio") else 1
        }
        assert ("file_name" in data["train"].features) == name.endswith("audio")


def test_files_are_cut_by_size_and_numbered(tmp_path):
    spec = replace(SPEC, subsets={"10pct": 0.1}, max_shard_mb=0.1)
    folder, run = make(tmp_path, 60, spec)
    files = sorted((folder / "data/audio").glob("train-*.parquet"))
    count = len(files)
    assert count > 2
    names = [f"train-{i:05d}-of-{count:05d}.parquet" for i in range(count)]
    assert [path.name for path in files] == names
    rows = [row for path in files for row in read_rows(path, ["id"])]
    expected = [row["id"] for row in read_rows(run["output"]) if row["split"] == "train"]
    assert [row["id"] for row in rows] == expected
    # a file holds at most max_shard_mb of rows, or one chunk of 8 clips where that alone is more
    assert max(pq.read_table(path).nbytes for path in files) <= 8 * 17_000
    data = load_dataset(str(folder), "audio", cache_dir=str(tmp_path / "cache"))
    assert data["train"]["id"] == expected


def test_card_is_valid_and_tells_the_run(made):
    folder, rows = made
    card = DatasetCard.load(folder / "README.md", ignore_metadata_errors=False)
    assert card.data.license == "cc-by-nc-sa-4.0"
    assert card.data.size_categories == ["n<1K"]
    assert card.data.source_datasets == ["google/MusicCaps"]
    configs = MetadataConfigs.from_dataset_card_data(card.data)
    assert set(configs) == {*TEXT_CONFIGS, *AUDIO_CONFIGS}
    assert configs.get_default_config_name() == "default"
    for name, config in configs.items():
        for entry in config["data_files"]:
            assert list(folder.glob(entry["path"])), (name, entry)
    counts = Counter(row["split"] for row in rows)
    numbers = [counts["train"], counts["validation"], counts["test"], 60]
    assert f"| `default` | {' | '.join(map(str, numbers))} |" in card.text
    assert "| vae | metrics | score\\|mean | 0.4321 | 0.4 to 0.45 | 60 |" in card.text
    assert "| text | base | score\\|mean | 0.4321 |" in card.text
    assert "| fad | floor | score\\|mean | not defined |" in card.text
    assert "1 of 2 pairs of concept and genre" in card.text
    assert "arXiv:2601.14157" in card.text
    assert "0123456789abcdef" in card.text
    assert "facebook/musicgen-large | main | CC BY-NC 4.0" in card.text
    for column in TAGS_OF.values():
        assert f"`{column}`" in card.text
    for line in card.text.splitlines():  # every table row has as many cells as its head
        assert not line.startswith("|") or re.fullmatch(r"\|( (\\\||[^|])* \|)+", line), line


def test_the_config_of_the_run_travels_along(made):
    assert json.loads((made[0] / "config.yaml").read_text()) == SETTINGS


def test_a_synthetic_run_says_so(tmp_path):
    settings = json.loads(json.dumps(SETTINGS))
    settings["sources"]["musiccaps"] = {"kind": "synthetic", "path": None, "revision": None}
    settings["audio"] |= {"model": "models/musicgen", "revision": None}
    folder, _ = make(tmp_path, 3, settings=settings)
    card = DatasetCard.load(folder / "README.md", ignore_metadata_errors=False)
    assert "synthetic source" in card.text
    assert "google/MusicCaps" not in card.content
    assert "models/musicgen" in card.text


def test_a_licence_that_an_input_forbids_is_refused(tmp_path):
    spec = replace(SPEC, subsets={}, licence="cc-by-4.0")
    with pytest.raises(InputError, match=r"cc-by-4\.0.*facebook/musicgen-large"):
        make(tmp_path, 3, spec)
    assert not (tmp_path / "hub").exists()
    assert not list(tmp_path.glob(".hub*"))


def test_a_shard_made_again_in_another_order_is_refused(tmp_path):
    folder, run = make(tmp_path, 5)
    shutil.rmtree(folder)
    write_table(run["audio"][0], read_rows(run["audio"][0])[::-1], AUDIO)
    with pytest.raises(InputError, match="row 0 is clip 'item004', the dataset expects 'item000'"):
        folder_of(tmp_path, run)
    write_table(run["audio"][0], read_rows(run["audio"][0])[::-1][:3], AUDIO)
    with pytest.raises(InputError, match="2 clips of the dataset are in none of the audio tables"):
        folder_of(tmp_path, run)
    assert not folder.exists()


def test_memory_stays_bounded_by_the_row_group(tmp_path):
    writer = hub._SplitFiles(tmp_path, "train", pa.schema([("x", pa.binary())]), max_bytes=10_000)
    for _ in range(50):
        writer.add(pa.table({"x": [b"0" * 1000]}))
        assert writer.waiting_bytes <= 10_000
    writer.close()
    assert sum(pq.read_metadata(path).num_rows for path in tmp_path.iterdir()) == 50


@pytest.mark.parametrize(
    ("recall", "unasked", "said"),
    [
        (0.8, 2, "drafts that names at least 80% of its tags and names no more than 2 others."),
        (None, 0, "drafts that names no more than 0 others."),
        (None, None, "."),
    ],
)
def test_the_card_says_which_limits_the_gate_had(recall, unasked, said):
    gate = {"drafts": 8, "min_tag_recall": recall, "max_unasked_tags": unasked}
    assert card._gate(gate).endswith(said)
