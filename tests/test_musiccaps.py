import csv
import hashlib
import os
from pathlib import Path

import pytest

from conceptcaps import musiccaps
from conceptcaps.errors import InputError
from conceptcaps.io import read_rows

ROW = {
    "ytid": "-abc",
    "start_s": "30",
    "end_s": "40",
    "audioset_positive_labels": "/m/1,/m/2",
    "aspect_list": "['Jazz', 'slow tempo']",
    "caption": " A slow piece. ",
    "author_id": "4",
    "is_balanced_subset": "False",
    "is_audioset_eval": "True",
}


def table(path: Path, *rows, columns=tuple(ROW)) -> Path:
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, columns, extrasaction="ignore")
        writer.writeheader()
        writer.writerows(rows)
    return path


def source(path, sha256=None):
    return musiccaps.Source(kind="file", path=str(path), revision=None, sha256=sha256, rows=1)


def test_row_is_parsed_to_types(tmp_path):
    path = table(tmp_path / "m.csv", ROW)
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    musiccaps.retrieve(source(path, digest), seed=0, output=tmp_path / "clips.parquet")
    assert read_rows(tmp_path / "clips.parquet") == [
        {
            "ytid": "-abc",
            "start_s": 30,
            "end_s": 40,
            "audioset_positive_labels": "/m/1,/m/2",
            "aspect_list": ["Jazz", "slow tempo"],
            "caption": "A slow piece.",
            "author_id": 4,
            "is_balanced_subset": False,
            "is_audioset_eval": True,
        }
    ]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"aspect_list": "['jazz', "}, r"line 3: column 'aspect_list' must be a list"),
        ({"aspect_list": "[1, 2]"}, r"column 'aspect_list' must be a list of quoted texts"),
        ({"aspect_list": "__import__('os')"}, r"column 'aspect_list' must be a list"),
        ({"start_s": "x"}, r"line 3: column 'start_s' must be a whole number, but is 'x'"),
        ({"caption": "  "}, r"line 3: column 'caption' is empty"),
        ({"is_audioset_eval": "yes"}, r"must be True or False, not 'yes'"),
        ({"ytid": "-abc"}, r"ytid '-abc' occurs 2 times"),
    ],
)
def test_broken_cell_names_line_and_column(tmp_path, change, message):
    path = table(tmp_path / "m.csv", ROW, ROW | {"ytid": "other"} | change)
    with pytest.raises(InputError, match=message):
        musiccaps.read_csv(path)


def test_missing_column_names_the_nearest(tmp_path):
    columns = ["aspects_list" if c == "aspect_list" else c for c in ROW]
    path = table(tmp_path / "m.csv", {**ROW, "aspects_list": "[]"}, columns=columns)
    with pytest.raises(InputError, match=r"no column 'aspect_list'\. Did you mean 'aspects_list'"):
        musiccaps.read_csv(path)


def test_empty_file_and_header_only(tmp_path):
    (tmp_path / "empty.csv").write_text("")
    with pytest.raises(InputError, match=r"empty\.csv: is empty"):
        musiccaps.read_csv(tmp_path / "empty.csv")
    with pytest.raises(InputError, match="has a header but no rows"):
        musiccaps.read_csv(table(tmp_path / "m.csv"))


def test_wrong_checksum_writes_nothing(tmp_path):
    path = table(tmp_path / "m.csv", ROW)
    with pytest.raises(
        InputError, match=r"m\.csv: its sha256 is [0-9a-f]{64}, but the config expects"
    ):
        musiccaps.retrieve(source(path, "0" * 64), seed=0, output=tmp_path / "clips.parquet")
    assert not (tmp_path / "clips.parquet").exists()


def test_hub_without_network_says_what_to_do(tmp_path):
    hub = musiccaps.Source("hub", "google/MusicCaps", "main", None, 1)
    with pytest.raises(InputError, match=r"cannot be downloaded .* kind: file"):
        musiccaps.retrieve(hub, seed=0, output=tmp_path / "clips.parquet")


def test_the_published_table(tmp_path):
    path = os.environ.get("MUSICCAPS_CSV")
    if not path:
        pytest.skip("set MUSICCAPS_CSV to the path of musiccaps-public.csv to run this")
    rows = musiccaps.read_csv(path)
    assert len(rows) == 5521
    assert len({aspect for row in rows for aspect in row["aspect_list"]}) > 13_000
