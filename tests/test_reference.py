"""The reference of the Frechet distance and its controls."""

import numpy as np
import pytest
import soundfile as sf

from conceptcaps import clap, clips, io, reference, schemas
from conceptcaps.errors import InputError

RATE = 22050
SPEC = clap.Spec("logmel", "", None, None, None, 1.0, 4)
CONTROLS = reference.Controls(control_clips=3, lowpass_hz=[1000, 20000])


def noise(seconds, seed):
    rng = np.random.default_rng(seed)
    return (0.1 * rng.standard_normal(round(seconds * RATE))).astype(np.float32)


def embed(tmp_path, *, tables=(), folder=None, seed=1, name="r"):
    paths = {k: tmp_path / f"{name}-{k}.parquet" for k in ("output", "controls_output", "ledger")}
    reference.embed_reference(
        tables=list(tables), folder=folder, controls=CONTROLS, spec=SPEC, seed=seed, **paths
    )
    return [io.read_rows(path) for path in paths.values()]


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "clips/b").mkdir(parents=True)
    for name, seconds in (("a.wav", 1.0), ("b/c.flac", 2.0), ("b/d.wav", 3.0)):
        sf.write(tmp_path / "clips" / name, noise(seconds, len(name)), RATE)
    (tmp_path / "clips/b/bad.wav").write_bytes(b"?")
    return tmp_path / "clips"


def test_a_folder_and_its_controls(tmp_path, folder):
    rows, controls, ledger = embed(tmp_path, folder=folder)
    assert [row["id"] for row in rows] == ["a.wav", "b/c.flac", "b/d.wav"]
    assert {row["id"]: row["status"] for row in ledger} == {
        "a.wav": "ok", "b/c.flac": "ok", "b/d.wav": "ok", "b/bad.wav": "corrupt"
    }  # fmt: skip
    found = {row["id"]: np.array(row["audio_embedding"]) for row in controls}
    kinds = ("lowpass_1000", "lowpass_20000", "noise", "silence")
    assert list(found) == [f"{kind}-{k:04d}" for kind in kinds for k in range(3)]
    assert len({x.tobytes() for name, x in found.items() if "noise" in name}) == 3
    assert len({x.tobytes() for name, x in found.items() if "silence" in name}) == 1
    first = np.array(rows[0]["audio_embedding"])
    np.testing.assert_array_equal(found["lowpass_20000-0000"], first)  # beyond half the rate
    gone = first - found["lowpass_1000-0000"]
    assert np.abs(gone[:15]).max() < 0.1 < 3 < gone[40:60].min()  # bands below, above 1 kHz


def test_noise_has_the_median_length_and_the_seed(tmp_path, folder):
    _, first, _ = embed(tmp_path, folder=folder)
    _, again, _ = embed(tmp_path, folder=folder, name="again")
    _, other, _ = embed(tmp_path, folder=folder, seed=2, name="other")
    assert first == again
    names = {a["id"].split("-")[0]: a != b for a, b in zip(first, other, strict=True)}
    assert names == {
        "lowpass_1000": False, "lowpass_20000": False, "noise": True, "silence": False
    }  # fmt: skip


def test_a_table_is_embedded_as_the_files_in_it(tmp_path, folder):
    rows = []
    for path in sorted(folder.rglob("*.flac")):
        wave, rate = clips.decode(path)
        data, _ = clips.encode_flac(wave, rate, peak=1.0)
        audio = {"bytes": data, "path": None}
        rows.append(dict.fromkeys(schemas.REAL_AUDIO.names) | {"id": "x", "audio": audio})
    io.write_table(tmp_path / "t.parquet", rows, schemas.REAL_AUDIO)
    (of_table,), _, _ = embed(tmp_path, tables=[tmp_path / "t.parquet"])
    of_folder = embed(tmp_path, folder=folder, name="f")[0][1]
    np.testing.assert_allclose(of_table["audio_embedding"], of_folder["audio_embedding"], atol=1e-4)


def test_a_reference_of_damaged_files_is_refused(tmp_path):
    (tmp_path / "clips").mkdir()
    (tmp_path / "clips/bad.wav").write_bytes(b"?")
    with pytest.raises(InputError, match="clips: no clips"):
        embed(tmp_path, folder=tmp_path / "clips")


def test_low_pass_keeps_what_is_below_and_takes_what_is_above():
    t = np.arange(RATE) / RATE
    low, high = np.sin(2 * np.pi * 500 * t), np.sin(2 * np.pi * 5000 * t)
    found = reference.low_pass((low + high).astype(np.float32), RATE, 2000)
    assert len(found) == RATE
    np.testing.assert_allclose(found[2000:-2000], low[2000:-2000], atol=0.01)


def test_low_passed_clips_are_picked_over_the_whole_reference(tmp_path, folder, monkeypatch):
    heard = []
    decode = clips.decode
    monkeypatch.setattr(clips, "decode", lambda s, rate: heard.append(s.name) or decode(s, rate))
    two = reference.Controls(control_clips=2, lowpass_hz=[1000])
    monkeypatch.setattr(f"{__name__}.CONTROLS", two)
    embed(tmp_path, folder=folder)
    assert heard == ["a.wav", "d.wav"]  # the first and the last of three
