import io

import numpy as np
import pytest
import soundfile as sf

from conceptcaps import clips
from conceptcaps.errors import InputError
from conceptcaps.io import write_table
from conceptcaps.schemas import REAL_AUDIO

RATE = 16000
TONE = (0.5 * np.sin(2 * np.pi * 440 * np.arange(RATE) / RATE)).astype(np.float32)


def test_level_is_set_but_the_peak_is_kept():
    for rms, peak in ((0.1, 0.9), (0.02, 0.9), (0.9, 0.5)):
        wave, _ = clips.decode(clips.encode_flac(TONE, RATE, peak=peak, rms=rms)[0])
        assert np.abs(wave).max() <= peak + 1e-3
        assert np.sqrt(np.mean(wave**2)) == pytest.approx(min(rms, peak / np.sqrt(2)), rel=0.01)


def test_a_quiet_wave_keeps_its_level_to_half_a_step():
    data, gain_db = clips.encode_flac(TONE, RATE, peak=0.9)
    wave, rate = clips.decode(data)
    assert gain_db == 0 and rate == RATE
    assert np.abs(wave - TONE).max() <= 2**-15


def test_a_loud_wave_is_turned_down_and_not_clipped():
    data, gain_db = clips.encode_flac(4 * TONE, RATE, peak=0.5)
    wave, _ = clips.decode(data)
    assert gain_db == pytest.approx(20 * np.log10(0.5 / 2), abs=1e-3)
    assert np.abs(wave - TONE).max() <= 2**-14  # the same shape: 4 * 0.125 = 0.5


def test_silence_is_left_alone():
    data, gain_db = clips.encode_flac(np.zeros(100), RATE, peak=0.5)
    assert gain_db == 0 and not clips.decode(data)[0].any()


def test_the_same_wave_gives_the_same_bytes():
    assert clips.encode_flac(TONE, RATE, peak=1)[0] == clips.encode_flac(TONE, RATE, peak=1)[0]


def test_stereo_is_mixed_and_other_rates_are_resampled():
    buffer = io.BytesIO()
    sf.write(buffer, np.stack([TONE, np.zeros_like(TONE)], axis=1), RATE, format="WAV")
    wave, rate = clips.decode(buffer.getvalue(), 8000)
    assert rate == 8000 and wave.shape == (8000,)
    spectrum = np.abs(np.fft.rfft(wave))
    assert spectrum.argmax() == 440
    assert np.abs(wave[1000:-1000]).max() == pytest.approx(0.25, abs=0.01)


@pytest.mark.parametrize(
    ("data", "message"), [(b"", "cannot be decoded"), (b"RIFF1234", "cannot be decoded")]
)
def test_broken_bytes_are_refused(data, message):
    with pytest.raises(InputError, match=message):
        clips.decode(data)


def test_empty_and_not_finite_audio_is_refused(tmp_path):
    sf.write(tmp_path / "empty.wav", np.zeros(0), RATE)
    with pytest.raises(InputError, match="holds no samples"):
        clips.decode(tmp_path / "empty.wav")
    sf.write(tmp_path / "nan.wav", np.full(10, np.nan), RATE, subtype="FLOAT")
    with pytest.raises(InputError, match="not finite"):
        clips.decode(tmp_path / "nan.wav")


def test_a_broken_clip_in_a_table_is_named(tmp_path):
    good, _ = clips.encode_flac(TONE, RATE, peak=1)
    rows = [
        {"id": i, "audio": {"bytes": data, "path": None}, "sampling_rate": RATE}
        for i, data in (("a", good), ("b", b"?"))
    ]
    write_table(
        tmp_path / "t.parquet", [dict.fromkeys(REAL_AUDIO.names) | r for r in rows], REAL_AUDIO
    )
    found = clips.iter_clips(tmp_path / "t.parquet")
    assert next(found)[0]["id"] == "a"
    with pytest.raises(InputError, match=r"t\.parquet: clip b cannot be decoded"):
        next(found)


def test_only_the_clips_asked_for_are_decoded(tmp_path):
    good = {"bytes": clips.encode_flac(TONE, RATE, peak=0.5)[0], "path": "a.flac"}
    rows = [{"id": "a", "audio": good}, {"id": "b", "audio": {"bytes": b"no", "path": "b.flac"}}]
    write_table(tmp_path / "clips.parquet", rows, REAL_AUDIO)
    found = list(clips.iter_clips(tmp_path / "clips.parquet", ids={"a", "c"}))
    assert [row["id"] for row, _ in found] == ["a"]
    assert len(found[0][1]) == RATE
