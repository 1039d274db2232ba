"""What a clip's rhythm says without any model: its tempo, its onsets, its percussive energy."""

from dataclasses import astuple, dataclass
from functools import lru_cache

import librosa
import numpy as np

FRAME_S, HOP_S = 0.064, 0.032  # of the spectrogram, seconds
BANDS = 64
_MEDIAN = 9  # frames and bands of the median filters that part percussive from harmonic
_LEAST_RISE_DB = 1.0  # of an onset, mean over the bands: a steady tone has ripples too
_AUTOCORRELATION_S = 4.0  # of the tempo estimate


@dataclass(frozen=True)
class Rhythm:
    """Five figures of a clip."""

    octaves: float  # log2 of the beat tracker's tempo in beats a minute
    onset_rate: float  # detected onsets a second
    onset_contrast: float  # log of the strongest over the mean onset strength
    percussive: float  # percussive share of the energy, in [0, 1]
    percussive_high: float  # the same above the middle of the bands


def measure(wave: np.ndarray, *, sampling_rate_hz: int) -> Rhythm:
    """Measure a mono wave [T], float32.

    Tempo: librosa's dynamic-programming beat tracker on the onset strength, with a start tempo from
    its autocorrelation. Trackers lock to half or double the beat, so `octaves` alone tells slow
    from fast badly; the onset rate helps. Percussive energy: median filters over time and frequency
    of the mel spectrogram's amplitude.

    **Source:** Ellis 2007 (beats); Fitzgerald 2010 (percussive and harmonic).
    """
    fft = 2 ** round(np.log2(FRAME_S * sampling_rate_hz))
    hop = round(HOP_S * sampling_rate_hz)
    if len(wave) < 4 * fft:
        wave = np.pad(wave, (0, 4 * fft - len(wave)))
    power = np.abs(librosa.stft(wave, n_fft=fft, hop_length=hop)) ** 2
    mel = _filters(sampling_rate_hz, fft) @ power  # (bands, frames)
    at = {"sr": sampling_rate_hz, "hop_length": hop}
    strength = librosa.onset.onset_strength(S=librosa.power_to_db(mel, ref=np.max), **at)
    if not strength.any():  # silence, or one unchanging sound
        return Rhythm(0.0, 0.0, 0.0, 0.0, 0.0)
    start = librosa.feature.tempo(onset_envelope=strength, ac_size=_AUTOCORRELATION_S, **at)
    tempo, _ = librosa.beat.beat_track(onset_envelope=strength, bpm=start, **at)
    onsets = librosa.onset.onset_detect(onset_envelope=strength, **at)
    onsets = onsets[strength[onsets] >= _LEAST_RISE_DB]
    harmonic, percussive = librosa.decompose.hpss(np.sqrt(mel), kernel_size=(_MEDIAN, _MEDIAN))
    return Rhythm(
        octaves=float(np.log2(max(1.0, np.ravel(tempo)[0]))),
        onset_rate=len(onsets) * sampling_rate_hz / len(wave),
        onset_contrast=float(np.log(strength.max() / strength.mean())),
        percussive=_share(percussive, harmonic, mel),
        percussive_high=_share(percussive[BANDS // 2 :], harmonic[BANDS // 2 :], mel),
    )


@lru_cache(maxsize=4)
def _filters(sampling_rate_hz: int, fft: int) -> np.ndarray:
    return librosa.filters.mel(sr=sampling_rate_hz, n_fft=fft, n_mels=BANDS)


def _share(part: np.ndarray, rest: np.ndarray, mel: np.ndarray) -> float:
    """Return the share of `part` in the energy of both; 0 where both are next to nothing."""
    energy = float((part**2).sum())
    return energy / (energy + float((rest**2).sum()) + 1e-6 * float(mel.sum()) + 1e-12)


def table(rhythms: list[Rhythm]) -> np.ndarray:
    """Return [N, 5], the figures in the order of the fields."""
    return np.array([astuple(rhythm) for rhythm in rhythms]).reshape(-1, 5)
