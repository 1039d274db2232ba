"""The WebDataset shards, read back by the webdataset library."""

import io
import json

import pytest
import soundfile as sf
import webdataset
from dataset_run import write_run

from conceptcaps import export, tarshards
from conceptcaps.io import read_json, read_rows

SPEC = export.Spec(validation=0.15, test=0.15, licence=None)


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    root = tmp_path_factory.mktemp("tars")
    run = write_run(root, 60)
    export.export_table(**run, spec=SPEC, seed=1)
    return root, run


def write(made, output, max_shard_mb=0.1):
    _, run = made
    tarshards.export_tars(
        dataset=run["output"], audio=run["audio"], max_shard_mb=max_shard_mb, output=output
    )
    return output


def test_webdataset_reads_every_row(made, tmp_path):
    folder = write(made, tmp_path / "webdataset")
    rows = {row["id"]: row for row in read_rows(made[1]["output"])}
    seen = set()
    for split, n in (("train", 42), ("validation", 9), ("test", 9)):
        files = sorted(str(path) for path in folder.glob(f"{split}-*.tar"))
        samples = list(webdataset.WebDataset(files, shardshuffle=False))
        assert len(samples) == n
        for sample in samples:
            row = rows[sample["__key__"]]
            record = json.loads(sample["json"])
            assert row["split"] == split == record["split"]
            assert sample["txt"].decode() == row["caption"]
            assert all(record[name] == row[name] for name in record)
            wave, rate = sf.read(io.BytesIO(sample["flac"]))
            assert len(wave) / rate == pytest.approx(row["duration_s"])
            seen.add(row["id"])
    assert seen == rows.keys()


def test_files_are_bounded_numbered_counted_and_the_same_again(made, tmp_path):
    folder = write(made, tmp_path / "one")
    counts = read_json(folder / "shards.json")
    assert sum(counts.values()) == 60
    trains = [name for name in counts if name.startswith("train")]
    assert trains == [f"train-{i:06d}.tar" for i in range(len(trains))] and len(trains) > 2
    assert all((folder / name).stat().st_size <= 100_000 + 10_240 for name in counts)
    again = write(made, tmp_path / "two")
    sums = (folder / "SHA256SUMS").read_text()
    assert (again / "SHA256SUMS").read_text() == sums and len(sums.splitlines()) == len(counts) + 1
