"""Quality control: each reason on a signal made for it, the loudness against its standard."""

import re
import time
from dataclasses import replace

import numpy as np
import pytest

from conceptcaps import clipquality
from conceptcaps.clipquality import Limits, judge, measure

RATE, SECONDS = 16000, 4
T = np.arange(RATE * SECONDS) / RATE
LIMITS = Limits(
    takes=1,
    silence_dbfs=-60.0,
    max_silent_share=0.5,
    max_clipped_share=0.05,
    min_lufs=-40.0,
    max_lufs=-8.0,
    max_dc=0.2,
    min_bandwidth_hz=150.0,
    max_repetition=0.9,
)
RNG = np.random.default_rng(0)
CODES = RNG.integers(0, 256, (4, 200))


def tone(hz=440.0, level=0.1):
    return level * np.sin(2 * np.pi * hz * T)


def music():
    """Return a decaying chord struck twice a second, with a little noise."""
    envelope = np.exp(-4 * (T % 0.5))
    chord = sum(np.sin(2 * np.pi * hz * T) for hz in (220, 277.2, 329.6, 880))
    return 0.05 * envelope * chord + 0.002 * RNG.standard_normal(len(T))


LATE = np.where(T > 2.5, music(), 0)


def verdict(wave, codes=CODES, limits=LIMITS, *, samples=RATE * SECONDS, gain_db=0.0):
    wave = np.atleast_2d(wave)
    measured = measure(wave, codes, rate_hz=RATE, silence_dbfs=limits.silence_dbfs)
    return judge(measured, limits, samples=samples, gain_db=gain_db)


@pytest.mark.parametrize("wave", [music(), tone(), 5 * music(), np.stack([music(), tone()])])
def test_a_fit_clip_passes(wave):
    assert verdict(wave) == ("ok", "")


@pytest.mark.parametrize(
    ("wave", "codes", "status", "reason"),
    [
        (music()[:-1], CODES, "wrong_length", "63999 samples of 64000"),
        (np.zeros(len(T)), CODES, "silent", "RMS -300.0 dBFS"),
        (tone(level=1e-3), CODES, "silent", "RMS -63.0 dBFS"),
        (LATE, CODES, "mostly_silent", "62% of it below -60 dBFS"),
        (np.clip(20 * music(), -0.5, 0.5), CODES, "clipped", "of the samples on a flat top"),
        (np.sign(tone()), CODES, "clipped", "of the samples on a flat top"),
        (music() + 0.05, CODES, "dc", r"mean of 0\.\d+ RMS"),
        (tone(level=2e-3), CODES, "quiet", r"-5\d\.\d LUFS"),
        (tone(level=0.9), CODES, "loud", r"-\d\.\d LUFS"),
        (tone(60, level=0.3), CODES, "dull", "99 % of its energy below"),
        (music(), np.tile(CODES[:, :10], 20), "repetitive", "100% of its codes repeat"),
        (music(), np.full((4, 200), 7), "repetitive", "100% of its codes repeat"),
    ],
)
def test_each_fault_has_its_reason(wave, codes, status, reason):
    limits = replace(LIMITS, min_lufs=-40.0)
    found, why = verdict(wave, codes, limits)
    assert found == status and re.search(reason, why), why


def test_the_loudness_is_that_of_the_stored_clip():
    assert verdict(tone(level=2e-3), gain_db=30)[0] == "ok"
    assert verdict(tone(level=0.1), gain_db=20)[0] == "loud"


def test_a_clip_that_was_clipped_and_then_turned_down_is_found():
    clipped = np.clip(20 * music(), -1, 1)
    shares = [clipquality.clipped_share(gain * clipped) for gain in (1.0, 1e-3)]
    assert shares[0] == pytest.approx(shares[1]) and shares[0] > 0.1
    assert clipquality.clipped_share(tone(100)) == 0


def test_weighting_is_the_standards_at_48_khz():
    shelf, high_pass = clipquality.k_weighting(48000)
    published = [1.53512485958697, -2.69169618940638, 1.19839281085285, 1.0]
    np.testing.assert_allclose(shelf[:4], published, atol=1e-12)
    np.testing.assert_allclose(shelf[4:], [-1.69065929318241, 0.73248077421585], atol=1e-12)
    np.testing.assert_allclose(high_pass[4:], [-1.99004745483398, 0.99007225036621], atol=1e-12)


@pytest.mark.parametrize("rate_hz", [16000, 32000, 48000])
def test_loudness_of_sines(rate_hz):
    t = np.arange(5 * rate_hz) / rate_hz
    sine = np.sin(2 * np.pi * 997 * t)[None]
    assert clipquality.loudness_lufs(sine, rate_hz=rate_hz) == pytest.approx(-3.01, abs=0.05)
    both = np.repeat(10 ** (-23 / 20) * sine, 2, axis=0)
    assert clipquality.loudness_lufs(both, rate_hz=rate_hz) == pytest.approx(-23, abs=0.05)


def test_loudness_leaves_pauses_out():
    """EBU Tech 3341, case 3: 10 s at -36, 60 s at -23, 10 s at -36 LUFS is -23 in all."""
    rate = 8000
    levels = np.repeat([-36.0, -23.0, -36.0], [10 * rate, 60 * rate, 10 * rate])
    sine = np.sin(2 * np.pi * 1000 * np.arange(len(levels)) / rate) * 10 ** (levels / 20)
    found = clipquality.loudness_lufs(np.stack([sine, sine]), rate_hz=rate)
    assert found == pytest.approx(-23, abs=0.1)
    assert clipquality.loudness_lufs(0 * sine[None], rate_hz=rate) == -np.inf


def test_bandwidth_of_filtered_noise():
    spectrum = np.fft.rfft(RNG.standard_normal(len(T)))
    spectrum[np.fft.rfftfreq(len(T), 1 / RATE) > 2000] = 0
    found = clipquality.bandwidth_hz(np.fft.irfft(spectrum), rate_hz=RATE)
    assert found == pytest.approx(0.99 * 2000, rel=0.02)


def test_repetition_finds_the_period_in_noisy_codes():
    loop = np.tile(CODES[:, :23], 9)[:, :200]
    noisy = np.where(RNG.random(loop.shape) < 0.1, RNG.integers(0, 256, loop.shape), loop)
    assert clipquality.repetition(loop) == 1
    assert 0.75 < clipquality.repetition(noisy) < 0.9
    assert clipquality.repetition(CODES) < 0.1
    assert clipquality.repetition(CODES[:, :1]) == 0


def test_a_long_clip_takes_milliseconds():
    wave = np.random.default_rng(1).standard_normal((1, 30 * 32000))
    codes = np.random.default_rng(1).integers(0, 2048, (4, 1500))
    started = time.process_time()
    measure(wave, codes, rate_hz=32000, silence_dbfs=-60.0)
    assert time.process_time() - started < 2  # 0.1 s on an idle core
