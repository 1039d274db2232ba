"""The genre corpus: GTZAN's layouts, corrupt files, other rates, and the synthetic one."""

import tarfile

import numpy as np
import pytest
import soundfile as sf

from conceptcaps import clips, gtzan, io
from conceptcaps.errors import InputError
from conceptcaps.schemas import GENRE_CLIPS

RATE = 16000


def tone(rate, hz, seconds=0.5):
    return 0.5 * np.sin(2 * np.pi * hz * np.arange(round(seconds * rate)) / rate)


@pytest.fixture
def genres(tmp_path):
    """Two clips a genre; one is corrupt, one empty, one stereo at another rate, one an .au file."""
    root = tmp_path / "Data" / "genres_original"
    for i, genre in enumerate(gtzan.GENRES):
        (root / genre).mkdir(parents=True)
        for k in range(2):
            sf.write(root / genre / f"{genre}.{k:05d}.wav", tone(RATE, 200 + 100 * i), RATE)
    (root / "jazz/jazz.00054.wav").write_bytes(b"RIFF, but no audio")
    (root / "pop/pop.00002.wav").touch()
    stereo = np.stack([tone(22050, 440), np.zeros(11025)], axis=1)
    sf.write(root / "rock/rock.00002.wav", stereo, 22050)
    sf.write(root / "blues/blues.00002.au", tone(RATE, 440), RATE)
    (root / "metal/._metal.00000.wav").write_bytes(b"resource fork")
    (root.parent / "images_original/blues").mkdir(parents=True)
    return root


def source(path, **changes):
    fields = {
        "kind": "folder",
        "path": path and str(path),
        "revision": None,
        "sampling_rate_hz": RATE,
        "clips_per_genre": 2,
        "clip_s": 1.0,
        "min_yield": 0.9,
    }
    return gtzan.Source(**{**fields, **changes})


def retrieve(src, folder, seed=1):
    gtzan.retrieve(src, seed=seed, output=folder / "clips.parquet", ledger=folder / "l.parquet")
    table = io.read_table(folder / "clips.parquet")
    assert table.schema.equals(GENRE_CLIPS)
    return table.to_pylist(), io.read_rows(folder / "l.parquet")


@pytest.mark.parametrize("name", ["genres_original", "parent"])
def test_folder_keeps_good_files_and_lists_bad_ones(genres, tmp_path, name):
    rows, ledger = retrieve(source(genres if name != "parent" else genres.parent), tmp_path)
    assert len(rows) == 22 and len(ledger) == 24
    bad = {row["id"]: row for row in ledger if row["status"] != "ok"}
    assert set(bad) == {"jazz.00054", "pop.00002"}
    assert all(row["status"] == "corrupt" and row["reason"] for row in bad.values())
    assert [row["genre"] for row in rows] == sorted(row["genre"] for row in rows)
    assert all(clips.sha256(row["audio"]["bytes"]) == row["sha256"] for row in rows)


def test_stereo_and_other_rates_become_mono_at_the_asked_rate(genres, tmp_path):
    rows, _ = retrieve(source(genres), tmp_path)
    rock = {row["id"]: row for row in rows}["rock.00002"]
    wave, rate = clips.decode(rock["audio"]["bytes"])
    assert rate == RATE and abs(len(wave) - RATE // 2) <= 1
    assert rock["duration_s"] == len(wave) / RATE
    assert np.abs(np.fft.rfft(wave)).argmax() * RATE / len(wave) == pytest.approx(440, abs=2)
    assert np.abs(wave).max() == pytest.approx(0.25, abs=0.02)  # the mean of a tone and silence


def test_au_files_hold_the_same_audio(genres, tmp_path):
    rows, _ = retrieve(source(genres), tmp_path)
    wave, _ = clips.decode({row["id"]: row for row in rows}["blues.00002"]["audio"]["bytes"])
    np.testing.assert_allclose(wave, tone(RATE, 440), atol=1e-4)


def test_too_many_corrupt_files_fail_and_leave_no_table(genres, tmp_path):
    with pytest.raises(InputError, match=r"2 of 24 .*jazz\.00054.*min_yield 0\.95"):
        retrieve(source(genres, min_yield=0.95), tmp_path)
    assert not (tmp_path / "clips.parquet").exists()


def test_genre_without_usable_clip_is_named(genres, tmp_path):
    for file in (genres / "disco").iterdir():
        file.write_bytes(b"")
    with pytest.raises(InputError, match="no usable clip of disco"):
        retrieve(source(genres, min_yield=0.5), tmp_path)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda d: (d / "rocks").mkdir(), r"none of GTZAN's genre folders.*It holds rocks/"),
        (lambda d: (d / "rock").mkdir(), r"genre folders \(rock\) but no audio file"),
        (lambda d: None, "It is empty"),
    ],
)
def test_other_layouts_are_explained(tmp_path, make, message):
    folder = tmp_path / "corpus"
    folder.mkdir()
    make(folder)
    with pytest.raises(InputError, match=message):
        retrieve(source(folder), tmp_path)


def test_two_files_with_one_id_are_refused(genres, tmp_path):
    sf.write(genres / "reggae/reggae.00001.au", tone(RATE, 300), RATE)
    with pytest.raises(InputError, match=r"two files are named reggae\.00001"):
        retrieve(source(genres), tmp_path)


def test_archive_of_the_hub_unpacks_to_the_same_clips(genres, tmp_path):
    with tarfile.open(tmp_path / "genres.tar.gz", "w:gz") as tar:
        tar.add(genres, "genres")
    gtzan.unpack(tmp_path / "genres.tar.gz", tmp_path / "unpacked")
    unpacked = gtzan.list_clips(tmp_path / "unpacked")
    assert [r.id for r in unpacked] == [r.id for r in gtzan.list_clips(genres)]


def test_archive_that_climbs_out_of_its_folder_is_refused(genres, tmp_path):
    with tarfile.open(tmp_path / "evil.tar.gz", "w:gz") as tar:
        tar.add(genres / "rock/rock.00000.wav", "../rock.00000.wav")
    with pytest.raises(InputError, match="cannot be unpacked"):
        gtzan.unpack(tmp_path / "evil.tar.gz", tmp_path / "deep" / "unpacked")
    assert not (tmp_path / "deep/rock.00000.wav").exists()


def test_synthetic_clips_depend_on_seed_and_id_only(tmp_path):
    many = source(None, kind="synthetic", clips_per_genre=3)
    few = source(None, kind="synthetic", clips_per_genre=1)
    rows, ledger = retrieve(many, tmp_path)
    assert len(rows) == len(ledger) == 30
    assert {row["genre"] for row in rows} == set(gtzan.GENRES)
    assert all(row["duration_s"] == 1.0 for row in rows)
    by_id = {row["id"]: row["sha256"] for row in rows}
    assert len(set(by_id.values())) == 30
    again, _ = retrieve(few, tmp_path)
    assert all(by_id[row["id"]] == row["sha256"] for row in again)
    other, _ = retrieve(few, tmp_path, seed=2)
    assert all(by_id[row["id"]] != row["sha256"] for row in other)
