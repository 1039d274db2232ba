"""A small picture of a clip: its mel spectrogram as WebP."""

import io as stdio

import matplotlib
import numpy as np
from PIL import Image

_FFT_S = 0.064  # window
_RANGE_DB = 70.0  # what lies further below the loudest point is black
_COLOURS = (matplotlib.colormaps["magma"](np.arange(256))[:, :3] * 255).astype(np.uint8)
_QUALITY = 55  # of WebP, 0 to 100


def draw(wave: np.ndarray, sampling_rate_hz: int, *, width: int, height: int) -> bytes:
    """Return the mel spectrogram of a wave ([T], float32) as a WebP picture.

    Time runs from left to right over the whole clip, frequency from 0 Hz below to half the sampling
    rate above, on the mel scale m = 2595 lg(1 + f / 700). Colour is the power in dB, from 70 dB
    below the loudest point of the clip to that point.
    """
    fft = 2 ** round(np.log2(_FFT_S * sampling_rate_hz))
    padded = np.pad(wave, (fft // 2, fft // 2))
    starts = np.linspace(0, len(padded) - fft, width).astype(int)
    frames = np.lib.stride_tricks.sliding_window_view(padded, fft)[starts] * np.hanning(fft)
    power = np.abs(np.fft.rfft(frames)) ** 2 @ _filters(fft, sampling_rate_hz, height)
    level = 10 * np.log10(np.maximum(power, 1e-12))  # (width, height)
    shade = np.clip((level - level.max()) / _RANGE_DB + 1, 0, 1) * 255
    picture = Image.fromarray(_COLOURS[shade.T[::-1].astype(np.uint8)])
    buffer = stdio.BytesIO()
    picture.save(buffer, "WEBP", quality=_QUALITY)
    return buffer.getvalue()


def _filters(fft: int, sampling_rate_hz: int, bands: int) -> np.ndarray:
    """Return triangles [fft / 2 + 1, bands] at equal distances on the mel scale, each of sum 1.

    A triangle is at least one bin of the transform wide, so that no low band is empty.
    """
    hz = np.fft.rfftfreq(fft, 1 / sampling_rate_hz)
    top = 2595 * np.log10(1 + sampling_rate_hz / 2 / 700)
    edges = 700 * (10 ** (np.linspace(0, top, bands + 2) / 2595) - 1)
    centre = edges[1:-1]
    half = np.maximum(np.diff(edges)[:-1], hz[1])
    triangles = np.maximum(1 - np.abs(hz[:, None] - centre) / half, 0)
    return triangles / triangles.sum(axis=0)
