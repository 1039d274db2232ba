"""Is a generated clip fit to be kept? Nine measures of its wave and codes, each with its limit.

Cheap enough for every clip: one filter, one spectrum and one walk over the codes, tens of
milliseconds for 30 s. All levels are in dB relative to full scale (amplitude 1).
"""

import math
from dataclasses import dataclass
from functools import cache

import numpy as np
from scipy.signal import sosfilt

_WINDOW = 4096  # samples of a spectrum's window
_QUIET_S = 0.1  # length of the windows that are silent or not
_BLOCK_S, _HOP_S = 0.4, 0.1  # of the loudness: BS.1770's 75 % overlap
_ABSOLUTE_GATE_LUFS, _RELATIVE_GATE_LU = -70.0, -10.0
_FLAT = 1e-4  # of the peak: neighbours that differ by less lie on one level
_ROLL_OFF = 0.99  # share of the energy below the bandwidth


@dataclass(frozen=True)
class Limits:
    """Config section `audio.quality`."""

    takes: int  # tries of a clip, each with a seed of its own
    silence_dbfs: float  # RMS below which a clip, or a tenth of a second of it, is silent
    max_silent_share: float  # of a clip's tenths of a second, [0, 1]
    max_clipped_share: float  # of the samples that lie on a flat top, [0, 1]
    min_lufs: float  # integrated loudness of the clip as it is stored
    max_lufs: float
    max_dc: float  # |mean| / RMS, [0, 1]
    min_bandwidth_hz: float  # 99 % of the energy lie below a clip's bandwidth
    max_repetition: float  # share of codes equal to those one period before, [0, 1]


@dataclass(frozen=True)
class Measures:
    """What was measured of a clip as generated, before its level was set."""

    samples: int
    rms_dbfs: float
    peak_dbfs: float
    lufs: float  # -inf when every block is below the absolute gate
    silent_share: float
    clipped_share: float
    dc: float
    bandwidth_hz: float
    repetition: float


def measure(wave: np.ndarray, codes: np.ndarray, *, rate_hz: int, silence_dbfs: float) -> Measures:
    """Measure a wave [channels, T], finite, and its codes [codebooks, frames]."""
    wave = np.asarray(wave, np.float64)
    mono = wave.mean(axis=0)
    power = float(np.mean(wave**2))
    peak = float(np.abs(wave).max(initial=0.0))
    return Measures(
        samples=wave.shape[-1],
        rms_dbfs=_db(power),
        peak_dbfs=_db(peak**2),
        lufs=loudness_lufs(wave, rate_hz=rate_hz),
        silent_share=_silent_share(mono, round(_QUIET_S * rate_hz), silence_dbfs),
        clipped_share=max(clipped_share(channel) for channel in wave),
        dc=float(np.abs(wave.mean(axis=1)).max() / math.sqrt(power)) if power else 0.0,
        bandwidth_hz=bandwidth_hz(mono, rate_hz=rate_hz),
        repetition=repetition(codes),
    )


def judge(measures: Measures, limits: Limits, *, samples: int, gain_db: float) -> tuple[str, str]:
    """Return (status, reason): "ok", or the first limit that the clip does not keep.

    Args:
        measures: of the clip.
        limits: to keep.
        samples: that the clip should have.
        gain_db: that is applied before it is stored.

    Statuses: wrong_length, silent, mostly_silent, clipped, dc, quiet, loud, dull, repetitive.
    """
    m, lufs = measures, measures.lufs + gain_db
    checks = (
        ("wrong_length", m.samples != samples, f"{m.samples} samples of {samples}"),
        ("silent", m.rms_dbfs < limits.silence_dbfs, f"RMS {m.rms_dbfs:.1f} dBFS"),
        (
            "mostly_silent",
            m.silent_share > limits.max_silent_share,
            f"{m.silent_share:.0%} of it below {limits.silence_dbfs:g} dBFS",
        ),
        (
            "clipped",
            m.clipped_share > limits.max_clipped_share,
            f"{m.clipped_share:.2%} of the samples on a flat top",
        ),
        ("dc", m.dc > limits.max_dc, f"mean of {m.dc:.2f} RMS"),
        ("quiet", lufs < limits.min_lufs, f"{lufs:.1f} LUFS"),
        ("loud", lufs > limits.max_lufs, f"{lufs:.1f} LUFS"),
        (
            "dull",
            m.bandwidth_hz < limits.min_bandwidth_hz,
            f"99 % of its energy below {m.bandwidth_hz:.0f} Hz",
        ),
        (
            "repetitive",
            m.repetition > limits.max_repetition,
            f"{m.repetition:.0%} of its codes repeat those one period before",
        ),
    )
    return next(((status, why) for status, failed, why in checks if failed), ("ok", ""))


def loudness_lufs(wave: np.ndarray, *, rate_hz: int) -> float:
    """Return the gated loudness of a wave [channels, T] of one or two channels, in LUFS.

    Of a clip shorter than a block of 0.4 s, the clip is the block. -inf if all is below -70 LUFS.

    **Source:** ITU-R BS.1770-5, annex 1. The filters are its two at any rate: an analogue design
    that gives its published coefficients at 48 kHz.
    """
    weighted = sosfilt(k_weighting(rate_hz), np.asarray(wave, np.float64), axis=-1)
    block, hop = round(_BLOCK_S * rate_hz), round(_HOP_S * rate_hz)
    block = min(block, wave.shape[-1])
    sums = np.concatenate([[0.0], np.cumsum((weighted**2).sum(axis=0))])
    starts = np.arange(0, wave.shape[-1] - block + 1, hop)
    power = (sums[starts + block] - sums[starts]) / block
    kept = power[power > _power(_ABSOLUTE_GATE_LUFS)]
    if not len(kept):
        return -math.inf
    gate = _power(_lufs(kept.mean()) + _RELATIVE_GATE_LU)
    return _lufs(kept[kept > gate].mean())


@cache
def k_weighting(rate_hz: int) -> np.ndarray:
    """Return the K-weighting as two second-order sections [2, 6]: a high shelf and a high pass."""
    k = math.tan(math.pi * 1681.974450955533 / rate_hz)
    q = 0.7071752369554196
    high = 10 ** (3.999843853973347 / 20)
    middle = high**0.4996667741545416
    norm = 1 + k / q + k * k
    bent = 2 * (k * k - 1) / norm, (1 - k / q + k * k) / norm
    shelf = [
        (high + middle * k / q + k * k) / norm,
        2 * (k * k - high) / norm,
        (high - middle * k / q + k * k) / norm,
    ]
    k = math.tan(math.pi * 38.13547087602444 / rate_hz)
    q = 0.5003270373238773
    norm = 1 + k / q + k * k
    low = 2 * (k * k - 1) / norm, (1 - k / q + k * k) / norm
    return np.array([[*shelf, 1.0, *bent], [1.0, -2.0, 1.0, 1.0, *low]])


def clipped_share(wave: np.ndarray) -> float:
    """Return the share of samples [T] that lie in threes on a flat top within 1 % of the peak.

    No matter how high the peak is: what was cut before it was turned down counts as well.
    """
    peak = np.abs(wave).max(initial=0.0)
    if len(wave) < 3 or peak == 0:
        return 0.0
    high = np.abs(wave) > 0.99 * peak
    level = high[1:] & high[:-1] & (np.abs(np.diff(wave)) < _FLAT * peak)
    threes = level[1:] & level[:-1]
    flat = np.zeros(len(wave), bool)
    for shift in range(3):
        flat[shift : shift + len(threes)] |= threes
    return float(flat.mean())


def bandwidth_hz(wave: np.ndarray, *, rate_hz: int) -> float:
    """Return the frequency below which 99 % of the energy of a wave [T] lies, its mean left out."""
    size = min(_WINDOW, len(wave))
    usable = len(wave) // size * size
    frames = (wave - wave.mean())[:usable].reshape(-1, size) * np.hanning(size)
    energy = np.cumsum((np.abs(np.fft.rfft(frames, axis=1)) ** 2).sum(axis=0))
    if energy[-1] == 0:
        return 0.0
    return float(np.searchsorted(energy, _ROLL_OFF * energy[-1]) * rate_hz / size)


def repetition(codes: np.ndarray) -> float:
    """Return the self-similarity of codes [K, T]: how much of them is a loop, in [0, 1].

    The largest share, over the periods up to half the clip, of codes that equal those one period
    before. Music that repeats itself is far below 1, since its frames fall differently.
    """
    length = codes.shape[1]
    return max(
        (float((codes[:, lag:] == codes[:, :-lag]).mean()) for lag in range(1, length // 2 + 1)),
        default=0.0,
    )


def _silent_share(mono: np.ndarray, window: int, silence_dbfs: float) -> float:
    usable = len(mono) // window * window
    if not usable:
        return 0.0
    power = np.mean(mono[:usable].reshape(-1, window) ** 2, axis=1)
    return float((power < 10 ** (silence_dbfs / 10)).mean())


def _db(power: float) -> float:
    return 10 * math.log10(max(power, 1e-30))


def _lufs(power: float) -> float:
    return -0.691 + 10 * math.log10(power)


def _power(lufs: float) -> float:
    return 10 ** ((lufs + 0.691) / 10)
