"""Clips that are not played here, as arms: folders with captions, MusicCaps' own clips."""

import numpy as np
import pytest
import soundfile as sf
import yaml

from conceptcaps import audiofolder, clips, io, recordings, schemas
from conceptcaps.errors import InputError

CAPTIONS = {
    "a.wav": "a tone, slow",
    "b/c.flac": 'a "tone", fast',
    "corrupt.wav": "noise",
    "gone.ogg": "silence",
    "mute.wav": " ",
}


def write_clip(path, *, rate=8000, hz=440.0, channels=2):
    path.parent.mkdir(parents=True, exist_ok=True)
    wave = 0.3 * np.sin(2 * np.pi * hz * np.arange(rate) / rate)
    sf.write(path, np.repeat(wave[:, None], channels, axis=1), rate)


def write_metadata(folder, captions, columns=("file_name", "caption")):
    quoted = ['"' + text.replace('"', '""') + '"' for text in captions.values()]
    rows = [",".join(columns), *map(",".join, zip(captions, quoted, strict=True))]
    (folder / "metadata.csv").write_text("\n".join(rows) + "\n", encoding="utf-8-sig")


@pytest.fixture
def folder(tmp_path):
    made = tmp_path / "mine"
    write_clip(made / "a.wav", channels=1)
    write_clip(made / "b/c.flac", rate=44100)
    write_clip(made / "mute.wav")
    (made / "corrupt.wav").write_bytes((made / "a.wav").read_bytes()[:40])
    write_metadata(made, CAPTIONS)
    return made


def collect(folder, out, *, shard=0, shard_items=8, min_yield=0.0):
    files = {name: out / f"{name}.parquet" for name in ("audio", "captions", "ledger")}
    recordings.collect_folder(
        folder=folder, shard=shard, shard_items=shard_items, min_yield=min_yield, **files
    )
    return {name: io.read_rows(path) for name, path in files.items()}


def test_files_are_taken_as_they_are_and_losses_get_their_reason(folder, tmp_path):
    made = collect(folder, tmp_path)
    assert [row["id"] for row in made["audio"]] == ["a.wav", "b/c.flac"]
    for row in made["audio"]:
        data = (folder / row["id"]).read_bytes()
        assert row["audio"] == {"bytes": data, "path": row["id"]}
        assert row["sha256"] == clips.sha256(data) and row["duration_s"] == 1.0
    assert [row["sampling_rate"] for row in made["audio"]] == [8000, 44100]
    assert {row["id"]: row["caption"] for row in made["captions"]} == {
        name: CAPTIONS[name] for name in ("a.wav", "b/c.flac")
    }
    fates = {row["id"]: row["status"] for row in made["ledger"]}
    assert fates == dict(
        zip(CAPTIONS, ["ok", "ok", "corrupt", "missing", "no_caption"], strict=True)
    )


def test_shards_follow_the_order_of_the_metadata(folder, tmp_path):
    whole = collect(folder, tmp_path)
    parts = [collect(folder, tmp_path / str(k), shard=k, shard_items=2) for k in range(3)]
    for name, rows in whole.items():
        assert [row for part in parts for row in part[name]] == rows


def test_too_many_losses_stop(folder, tmp_path):
    with pytest.raises(InputError, match="corrupt"):
        collect(folder, tmp_path, min_yield=0.5)


@pytest.mark.parametrize(
    ("columns", "captions", "said"),
    [
        (("file", "caption"), {"a.wav": "x"}, "no column 'file_name'"),
        (("file_name", "captions"), {"a.wav": "x"}, "Did you mean 'captions'?"),
        (("file_name", "caption"), {}, "has no rows"),
        (("file_name", "caption"), {"": "x"}, "'' stands there twice, or is empty"),
    ],
)
def test_metadata_that_does_not_fit_is_named(tmp_path, columns, captions, said):
    write_metadata(tmp_path, captions, columns)
    with pytest.raises(InputError, match=r"metadata\.csv") as caught:
        audiofolder.read_captions(tmp_path)
    assert said in str(caught.value)


def test_a_folder_without_metadata_is_told_what_it_needs(tmp_path):
    with pytest.raises(InputError, match="with the columns file_name and caption"):
        audiofolder.read_captions(tmp_path / "nothing")


def test_musiccaps_own_clips_get_their_human_captions(folder, tmp_path):
    rows = collect(folder, tmp_path)["audio"]
    table, arrived = tmp_path / "clips.parquet", tmp_path / "arrived.parquet"
    io.write_table(arrived, rows, schemas.REAL_AUDIO)
    others = [{"ytid": "other", "caption": "not downloaded"}]
    known = [{"ytid": row["id"], "caption": f"of {row['id']}"} for row in rows]
    io.write_table(table, others + known, schemas.CLIPS)
    files = {name: tmp_path / f"own.{name}" for name in ("audio", "captions", "ledger")}
    recordings.collect_clips(table=table, rows=arrived, **files)
    assert io.read_rows(files["audio"]) == rows
    found = {row["id"]: row["caption"] for row in io.read_rows(files["captions"])}
    assert found == {row["ytid"]: row["caption"] for row in known}
    assert {row["status"] for row in io.read_rows(files["ledger"])} == {"ok"}


@pytest.mark.pipeline
@pytest.mark.long
def test_a_folder_is_scored_beside_the_other_arms(mini, tmp_path):
    run = mini.copy(tmp_path / "run")
    folder = tmp_path / "tones"
    names = [f"{k:02d}.wav" for k in range(12)]
    for k, name in enumerate(names):
        write_clip(folder / name, rate=16000, hz=110.0 * (k + 1))
    write_metadata(folder, {name: f"a tone, {name}" for name in names})
    overlay = tmp_path / "recorded.yaml"

    def scores(recorded, *options):
        overlay.write_text(yaml.safe_dump({"arms": {"recorded": recorded}}))
        files = ["overlays/mini.yaml", overlay]
        done = run.snakemake(
            "--workflow-profile", "mini", "--configfile", *files, *options, "--", "scores",
            check=False,
        )  # fmt: skip
        return done.stdout

    wrong = scores({"base": str(folder)}, "-n")
    assert "arms.recorded: 'base' is the name of another arm" in wrong
    assert "Did you mean" in scores({"tones": str(folder)}, "-n", "--config", "arms={recordd: {}}")
    said = scores({"tones": str(folder)})
    assert "rule collect_recordings" in said and "rule generate_audio" not in said
    fad, clap = (io.read_json(run.results / f"scores/{name}.json") for name in ("fad", "clap"))
    distance = {arm: rows[0]["value"] for arm, rows in fad["arms"].items()}
    assert distance["tones"] > 2 * distance["conceptcaps"], distance
    assert clap["order"][-1] == "tones"
    assert clap["arms"]["tones"][0]["n"] == len(names)
