"""The miniature world's instruments: plain additive synthesis with numpy, and the mix of a clip."""

from functools import lru_cache

import numpy as np

from conceptcaps.arrangement import FRAME_S, arrange
from conceptcaps.errors import InputError
from conceptcaps.grammar import CATEGORY_OF

_GAIN = {  # peak of an instrument's note in the mix, before its velocity
    "piano": 0.5, "acoustic guitar": 0.6, "distorted electric guitar": 0.35, "strings": 0.4,
    "flute": 0.6, "trumpet": 0.5, "bass": 0.8, "synth lead": 0.35, "synth pad": 0.35,
    "deep male voice": 0.7, "bright female voice": 0.6, "kick": 1.0, "snare": 0.6, "hat": 0.35,
    "claps": 0.6,
}  # fmt: skip
_RELEASE_S = 0.03
_VOWELS = (  # first three formants in Hz of a man's a, e, i, o; a woman's lie 17 % higher
    (700, 1200, 2600),
    (500, 1800, 2500),
    (300, 2200, 3000),
    (450, 850, 2500),
)


def render(
    tags: dict[str, list[str]], *, seed: int, duration_s: float, sampling_rate_hz: int
) -> np.ndarray:
    """Play a tag set.

    Args:
        tags: category -> tags of `grammar.TAXONOMY`.
        seed: decides everything that the tags leave open.
        duration_s: length of the clip.
        sampling_rate_hz: its rate, at least 8000.

    Returns:
        Mono wave [round(duration_s * sampling_rate_hz)], float32 in [-1, 1]. Notes start on a grid
        of `FRAME_S` seconds, a beat on the first sample.

    Raises:
        InputError: a tag is not in the grammar.
    """
    unknown = [tag for group in tags.values() for tag in group if tag not in CATEGORY_OF]
    if unknown:
        raise InputError(f"the synthesiser cannot play {unknown}: not tags of the grammar.")
    samples = round(duration_s * sampling_rate_hz)
    frames = int(np.ceil(duration_s / FRAME_S))
    notes, _, feel = arrange(tags, np.random.default_rng(seed), frames=frames)
    mix = np.zeros(samples, np.float32)
    for start, instrument, pitch, length, velocity in notes:
        at = round(start * FRAME_S * sampling_rate_hz)
        note = _note(instrument, pitch, length, sampling_rate_hz)[: samples - at]
        mix[at : at + len(note)] += velocity * note
    echo = round(5 * FRAME_S * sampling_rate_hz)
    if feel.echo and samples > echo:
        mix[echo:] += feel.echo * mix[:-echo]
    mix = _tilt(mix, feel.tilt_db, sampling_rate_hz)
    peak = float(np.abs(mix).max(initial=0.0))
    return mix * np.float32((0.2 + 0.7 * feel.level) / peak) if peak else mix


def _tilt(wave: np.ndarray, tilt_db: float, rate: int) -> np.ndarray:
    """Turn the spectrum around 1 kHz by `tilt_db` per octave."""
    if not tilt_db:
        return wave
    spectrum = np.fft.rfft(wave)
    octaves = np.log2(np.maximum(np.fft.rfftfreq(len(wave), 1 / rate), 50) / 1000)
    return np.fft.irfft(spectrum * 10 ** (tilt_db * octaves / 20), len(wave)).astype(np.float32)


@lru_cache(maxsize=2000)
def _note(instrument: str, pitch: int, frames: int, rate: int) -> np.ndarray:
    """Return one note as played, at its level in the mix; notes repeat, so they are kept."""
    t = np.arange(round(frames * FRAME_S * rate), dtype=np.float32) / rate
    wave = _PLAYERS[instrument](440 * 2 ** ((pitch - 69) / 12), t, rate)
    release = round(_RELEASE_S * rate)
    wave[-release:] *= np.linspace(1, 0, release, dtype=np.float32)
    wave = (_GAIN[instrument] * wave / np.abs(wave).max()).astype(np.float32)
    wave.setflags(write=False)
    return wave


def _partials(phase: np.ndarray, amplitudes: np.ndarray) -> np.ndarray:
    """Sum sines at multiples of a phase [T] (radians); amplitudes [K] or, time-varying, [K, T]."""
    turn = np.exp(1j * phase).astype(np.complex64)
    power, wave = turn.copy(), np.zeros(len(phase), np.float32)
    for amplitude in amplitudes:
        wave += amplitude * power.imag
        power *= turn
    return wave


def _harmonics(f0: float, rate: int, most: int) -> np.ndarray:
    """Return the numbers 1, 2, ... of the harmonics below 0.45 of the rate, `most` at most."""
    return np.arange(1, max(2, min(most + 1, int(0.45 * rate / f0) + 1)), dtype=np.float32)


def _vibrato(f0: float, t: np.ndarray, *, depth: float, rate_hz: float) -> np.ndarray:
    """Return the phase of a tone whose pitch swings by the share `depth` at `rate_hz`."""
    wobble = depth * f0 / rate_hz * (1 - np.cos(2 * np.pi * rate_hz * t))
    return 2 * np.pi * f0 * t + wobble


def _attack(t: np.ndarray, seconds: float) -> np.ndarray:
    return np.minimum(1, t / seconds)


def _noise(samples: int, rate: int, *, low_hz: float, high_hz: float) -> np.ndarray:
    """Return the same band of white noise every time, peak about 1."""
    spectrum = np.fft.rfft(np.random.default_rng(0).standard_normal(samples))
    frequency = np.fft.rfftfreq(samples, 1 / rate)
    wave = np.fft.irfft(spectrum * ((frequency >= low_hz) & (frequency <= high_hz)), samples)
    return (wave / np.abs(wave).max()).astype(np.float32)


def _piano(f0, t, rate):
    k = _harmonics(f0, rate, 12)
    stretch = k * np.sqrt(1 + 4e-4 * k**2)  # stiff strings: partials are a little sharp
    decay = np.exp(-np.outer(1.5 + 0.7 * k, t))  # (K, T): high partials die first
    tones = np.sin(2 * np.pi * f0 * np.outer(stretch, t)) / k[:, None] ** 1.3
    return (tones * decay).sum(0) * _attack(t, 0.004)


def _acoustic_guitar(f0, t, rate):
    k = _harmonics(f0, rate, 20)
    pluck = np.sin(np.pi * k * 0.13) / k  # string plucked at 13 % of its length
    decay = np.exp(-np.outer(2.0 + 0.5 * k, t))
    return _partials(2 * np.pi * f0 * t, pluck[:, None] * decay) * _attack(t, 0.002)


def _distorted_guitar(f0, t, rate):
    k = _harmonics(2 * f0, rate, 10)
    string = _partials(2 * np.pi * f0 * t, 1 / k) + _partials(3 * np.pi * f0 * t, 1 / k)
    driven = np.tanh(6 * string * np.exp(-0.8 * t))  # root and fifth into the amplifier
    spectrum = np.fft.rfft(driven)
    cabinet = 1 / (1 + (np.fft.rfftfreq(len(t), 1 / rate) / 4500) ** 4)
    return np.fft.irfft(spectrum * cabinet, len(t)) * _attack(t, 0.003)


def _strings(f0, t, rate):
    k = _harmonics(f0 * 1.01, rate, 16)
    players = (_vibrato(f0 * d, t, depth=0.004, rate_hz=v) for d, v in ((1, 5.5), (1.006, 4.9)))
    return sum(_partials(phase, 1 / k**1.1) for phase in players) * _attack(t, 0.1)


def _flute(f0, t, rate):
    amplitudes = np.array([1, 0.25, 0.08, 0.02])[: len(_harmonics(f0, rate, 4))]
    breath = 0.06 * _noise(len(t), rate, low_hz=1500, high_hz=6000)
    phase = _vibrato(f0, t, depth=0.005, rate_hz=5)
    return (_partials(phase, amplitudes) + breath) * _attack(t, 0.06)


def _trumpet(f0, t, rate):
    k = _harmonics(f0, rate, 16)
    body = np.exp(-(((k * f0 - 1300) / 1200) ** 2)) + 0.3 / k  # brightest about 1.3 kHz
    opening = _attack(t, 0.05)[None] ** (0.5 + 0.25 * k[:, None])  # high partials come last
    return _partials(_vibrato(f0, t, depth=0.003, rate_hz=5), body[:, None] * opening)


def _bass(f0, t, rate):
    k = _harmonics(f0, rate, 6)
    decay = np.exp(-np.outer(1 + 0.8 * k, t))
    return _partials(2 * np.pi * f0 * t, decay / k[:, None] ** 1.6) * _attack(t, 0.005)


def _synth_lead(f0, t, rate):
    k = _harmonics(f0, rate, 24)
    return _partials(2 * np.pi * f0 * t, (k % 2) / k) * _attack(t, 0.005)  # a square wave


def _synth_pad(f0, t, rate):
    k = _harmonics(f0 * 1.01, rate, 10)
    voices = (_partials(2 * np.pi * f0 * d * t, 1 / k**1.7) for d in (0.994, 1.006))
    return sum(voices) * _attack(t, 0.2)


def _voice(f0, t, rate, *, tract: float, depth: float):
    """Sing a vowel, another for each pitch: glottal harmonics through three formants."""
    k = _harmonics(f0, rate, 40)
    vowel = _VOWELS[round(12 * np.log2(f0 / 440)) % 4]
    amplitudes = sum(
        level / (1 + ((k * f0 - tract * formant) / (60 + 0.05 * formant)) ** 2)
        for formant, level in zip(vowel, (1, 0.5, 0.25), strict=True)
    )
    phase = _vibrato(f0, t, depth=depth, rate_hz=5.5)
    return _partials(phase, (amplitudes + 0.02) / k**0.5) * _attack(t, 0.05)


def _man(f0, t, rate):
    return _voice(f0, t, rate, tract=1.0, depth=0.008)


def _woman(f0, t, rate):
    return _voice(f0, t, rate, tract=1.17, depth=0.012)


def _kick(_, t, rate):
    return np.sin(2 * np.pi * (45 * t + 4 * (1 - np.exp(-25 * t)))) * np.exp(-14 * t)


def _snare(_, t, rate):
    rattle = _noise(len(t), rate, low_hz=800, high_hz=0.4 * rate) * np.exp(-18 * t)
    return rattle + 0.6 * np.sin(2 * np.pi * 190 * t) * np.exp(-25 * t)


def _hat(_, t, rate):
    return _noise(len(t), rate, low_hz=0.3 * rate, high_hz=0.45 * rate) * np.exp(-45 * t)


def _claps(_, t, rate):
    hands = sum(np.exp(-120 * np.maximum(t - d, 0)) * (t >= d) for d in (0, 0.011, 0.023))
    tail = 0.5 * np.exp(-25 * np.maximum(t - 0.023, 0)) * (t >= 0.023)
    return _noise(len(t), rate, low_hz=900, high_hz=2800) * (hands + tail)


_PLAYERS = {
    "piano": _piano,
    "acoustic guitar": _acoustic_guitar,
    "distorted electric guitar": _distorted_guitar,
    "strings": _strings,
    "flute": _flute,
    "trumpet": _trumpet,
    "bass": _bass,
    "synth lead": _synth_lead,
    "synth pad": _synth_pad,
    "deep male voice": _man,
    "bright female voice": _woman,
    "kick": _kick,
    "snare": _snare,
    "hat": _hat,
    "claps": _claps,
}
