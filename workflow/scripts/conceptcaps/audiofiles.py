"""Audio of any kind as mono windows of one rate, decoded as a stream: memory does not grow with it.

soundfile (libsndfile) decodes WAV, AU, FLAC, OGG, MP3 and AIFF; soxr resamples block by block.
"""

import io
from collections.abc import Iterable, Iterator
from pathlib import Path

import numpy as np
import soundfile as sf
import soxr

from conceptcaps.errors import InputError

RESAMPLER = "HQ"  # soxr's quality
_BLOCK_S = 5.0  # seconds decoded at a time
_LEAST_REST = 0.01  # of a window: less than this at the end of a clip is left out


def duration_s(path: str | Path) -> float:
    """Return the length of an audio file in seconds, as its header has it."""
    return sf.info(str(path)).duration


def stream_mono(source: bytes | str | Path, sampling_rate_hz: int) -> Iterator[np.ndarray]:
    """Yield a file, or its bytes, as blocks [T] of mono float32 at `sampling_rate_hz`.

    Channels are averaged. All blocks together are what `clips.decode` returns, within rounding.

    Raises:
        InputError: it cannot be decoded to its end, is empty, or holds values that are not finite.
    """
    opened = io.BytesIO(source) if isinstance(source, bytes) else str(source)
    try:
        with sf.SoundFile(opened) as file:
            yield from _blocks(file, sampling_rate_hz)
    except (sf.LibsndfileError, OSError, RuntimeError) as error:
        raise InputError(undecodable(error)) from error


def undecodable(error: Exception) -> str:
    """Return why a file cannot be decoded, the same in every run."""
    # libsndfile's own text begins with the file, and for bytes in memory with their address
    return f"cannot be decoded as audio ({getattr(error, 'error_string', error)})"


def _blocks(file: sf.SoundFile, rate: int) -> Iterator[np.ndarray]:
    resampler = None
    if file.samplerate != rate:
        resampler = soxr.ResampleStream(
            file.samplerate, rate, 1, dtype="float32", quality=RESAMPLER
        )
    samples = 0
    for block in file.blocks(round(_BLOCK_S * file.samplerate), dtype="float32", always_2d=True):
        mono = block.mean(axis=1)  # (T, C) -> (T,)
        if not np.isfinite(mono).all():
            raise InputError("holds samples that are not finite")
        samples += len(mono)
        yield resampler.resample_chunk(mono) if resampler else mono
    if not samples:
        raise InputError("holds no samples")
    if resampler:
        yield resampler.resample_chunk(np.zeros(0, np.float32), last=True)


def stream_windows(blocks: Iterable[np.ndarray], *, size: int) -> Iterator[np.ndarray]:
    """Yield windows [size] that cover a clip, given as blocks [T], from its start to its end.

    Windows follow one another; what remains at the end gets a last window that ends with the clip
    and overlaps the one before. A rest below a hundredth of a window is left out; a clip shorter
    than one window is repeated to fill it.
    """
    rest, last = np.zeros(0, np.float32), None
    for block in blocks:
        rest = np.concatenate([rest, block])
        while len(rest) >= size:
            last, rest = rest[:size], rest[size:]
            yield last
    if last is None and len(rest):
        yield np.resize(rest, size)  # numpy's resize repeats
    elif len(rest) >= _LEAST_REST * size:
        yield np.concatenate([last, rest])[-size:]
