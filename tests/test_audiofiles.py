"""Audio of any kind as windows: what libsndfile reads, and what it cannot."""

import tracemalloc

import numpy as np
import pytest
import soundfile as sf

from conceptcaps import audiofiles, audiofolder, clips
from conceptcaps.errors import InputError

RATE = 16000


def wave(seconds, rate, seed=0):
    t = np.arange(round(seconds * rate)) / rate
    noise = np.random.default_rng(seed).standard_normal(len(t))
    return (0.4 * np.sin(2 * np.pi * 440 * t) + 0.02 * noise).astype(np.float32)


def decoded(source):
    return np.concatenate(list(audiofiles.stream_mono(source, RATE)))


@pytest.mark.parametrize(
    ("name", "rate", "channels", "subtype"),
    [
        ("a.wav", 8000, 1, "PCM_16"),
        ("a.wav", 96000, 2, "PCM_24"),
        ("a.wav", 44100, 2, "FLOAT"),
        ("a.au", 22050, 1, "PCM_16"),
        ("a.flac", 48000, 2, "PCM_24"),
        ("a.ogg", 44100, 2, "VORBIS"),
        ("a.mp3", 44100, 1, "MPEG_LAYER_III"),
        ("a.wav", RATE, 1, "PCM_16"),
    ],
)
def test_any_rate_and_format_becomes_mono_at_the_asked_rate(
    tmp_path, name, rate, channels, subtype
):
    mono = wave(12.3, rate)
    sf.write(tmp_path / name, np.stack([mono] * channels, axis=1), rate, subtype=subtype)
    found = decoded(tmp_path / name)
    lossy = subtype in ("VORBIS", "MPEG_LAYER_III")
    assert len(found) == pytest.approx(12.3 * RATE, abs=2400 if lossy else 2)
    spectrum = np.abs(np.fft.rfft(found[: 10 * RATE]))
    assert spectrum.argmax() == 4400  # 440 Hz in 10 s
    assert np.sqrt(2 * np.mean(found[RATE:-RATE] ** 2)) == pytest.approx(0.4, abs=0.02)
    np.testing.assert_array_equal(decoded((tmp_path / name).read_bytes()), found)
    whole, _ = clips.decode(tmp_path / name, RATE)
    assert len(whole) == pytest.approx(len(found), abs=1)
    n = min(len(whole), len(found))
    np.testing.assert_allclose(found[:n], whole[:n], atol=2e-4)  # as if decoded at once


def test_channels_are_averaged(tmp_path):
    sf.write(tmp_path / "a.wav", np.array([[0.5, -0.1], [0.3, 0.3]]), RATE, subtype="FLOAT")
    np.testing.assert_allclose(decoded(tmp_path / "a.wav"), [0.2, 0.3], atol=1e-6)


def broken(path, kind):
    sf.write(path, wave(2, RATE), RATE, format="FLAC" if kind == "cut" else "WAV")
    data = path.read_bytes()
    path.write_bytes({"empty": b"", "text": b"no audio", "cut": data[: len(data) // 2]}[kind])


@pytest.mark.parametrize("kind", ["empty", "text", "cut"])
def test_what_cannot_be_decoded_to_its_end_is_refused(tmp_path, kind):
    broken(tmp_path / "a.wav", kind)
    with pytest.raises(InputError, match="cannot be decoded"):
        decoded(tmp_path / "a.wav")


def test_no_samples_and_bad_samples_are_refused(tmp_path):
    sf.write(tmp_path / "empty.wav", np.zeros(0), RATE)
    with pytest.raises(InputError, match="holds no samples"):
        decoded(tmp_path / "empty.wav")
    sf.write(tmp_path / "nan.wav", np.full(10, np.nan), RATE, subtype="FLOAT")
    with pytest.raises(InputError, match="not finite"):
        decoded(tmp_path / "nan.wav")


def test_memory_does_not_grow_with_the_file(tmp_path):
    sf.write(tmp_path / "a.wav", np.zeros(300 * RATE, np.int16), RATE)  # 5 minutes, 19 MB as float
    tracemalloc.start()
    windows = sum(1 for _ in audiofiles.stream_windows(
        audiofiles.stream_mono(tmp_path / "a.wav", 2 * RATE), size=20 * RATE))  # fmt: skip
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert windows == 30
    assert peak < 8e6


def windows(samples, block):
    blocks = np.array_split(np.arange(samples, dtype=np.float32) % 1000, max(1, samples // block))
    return [w.astype(int).tolist() for w in audiofiles.stream_windows(blocks, size=200)]


@pytest.mark.parametrize(
    ("samples", "starts"),
    [
        (200, [0]),
        (400, [0, 200]),
        (401, [0, 200]),  # a rest below a hundredth of a window
        (402, [0, 200, 202]),  # the last window ends with the clip
        (590, [0, 200, 390]),
    ],
)
@pytest.mark.parametrize("block", [7, 200, 1000])
def test_windows_cover_a_clip_from_start_to_end(samples, starts, block):
    assert windows(samples, block) == [list(range(s, s + 200)) for s in starts]


def test_a_clip_shorter_than_a_window_is_repeated():
    assert windows(3, 10) == [([0, 1, 2] * 67)[:200]]
    assert windows(0, 10) == []


def test_folders_are_listed(tmp_path):
    (tmp_path / "b").mkdir()
    for name in ("b/x.WAV", "a.mp3", ".hidden.wav", "notes.txt"):
        (tmp_path / name).write_bytes(b"")
    found = [path.relative_to(tmp_path).as_posix() for path in audiofolder.list_audio(tmp_path)]
    assert found == ["a.mp3", "b/x.WAV"]
    with pytest.raises(InputError, match="is not a folder"):
        audiofolder.list_audio(tmp_path / "none")
    (tmp_path / "c").mkdir()
    with pytest.raises(InputError, match="holds no audio files"):
        audiofolder.list_audio(tmp_path / "c")
