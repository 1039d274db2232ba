"""Audio clips as FLAC bytes in parquet: encode, decode, read one after another."""

import hashlib
import io as stdio
from collections.abc import Container, Iterator
from pathlib import Path

import numpy as np
import pyarrow as pa
import soundfile as sf
import soxr

from conceptcaps import audiofiles
from conceptcaps.errors import InputError
from conceptcaps.io import iter_batches


def encode_flac(
    wave: np.ndarray, sampling_rate: int, *, peak: float, rms: float | None = None
) -> tuple[bytes, float]:
    """Encode a wave ([T] or [channels, T], float in any range) as 16-bit FLAC.

    The wave is brought to the level `rms`, if one is given, but nowhere above `peak` (full scale =
    1 for both): it is turned down, never clipped. Returns the bytes and the gain applied in dB.
    """
    highest = float(np.abs(wave).max(initial=0.0))
    wanted = (
        rms / float(np.sqrt(np.mean(np.square(wave, dtype=np.float64)))) if rms and highest else 1.0
    )
    gain = min(wanted, peak / highest) if highest > 0 else 1.0
    buffer = stdio.BytesIO()
    sf.write(
        buffer,
        np.asarray(wave * gain, np.float32).T,
        sampling_rate,
        format="FLAC",
        subtype="PCM_16",
    )
    return buffer.getvalue(), float(20 * np.log10(gain))


def decode(data: bytes | str | Path, sampling_rate: int | None = None) -> tuple[np.ndarray, int]:
    """Decode audio bytes or a file to a mono float32 wave [T], resampled to `sampling_rate` (Hz).

    Raises:
        InputError: the data cannot be decoded, is empty, or holds values that are not finite.
    """
    source = stdio.BytesIO(data) if isinstance(data, bytes) else str(data)
    try:
        wave, rate = sf.read(source, dtype="float32", always_2d=True)
    except (sf.LibsndfileError, OSError) as error:
        raise InputError(audiofiles.undecodable(error)) from error
    wave = wave.mean(axis=1)  # (T, C) -> (T,)
    if not len(wave):
        raise InputError("holds no samples")
    if not np.isfinite(wave).all():
        raise InputError("holds samples that are not finite")
    if sampling_rate and rate != sampling_rate:
        wave, rate = soxr.resample(wave, rate, sampling_rate), sampling_rate
    return wave, rate


def pack_codes(codes: np.ndarray) -> dict:
    """Return EnCodec codes [K, T] as the columns codes, codebooks and codes_sha256."""
    data = np.ascontiguousarray(codes, dtype="<i2").tobytes()
    return {"codes": data, "codebooks": len(codes), "codes_sha256": sha256(data)}


def unpack_codes(row: dict) -> np.ndarray:
    """Return the codes of a row as [K, T] int16."""
    return np.frombuffer(row["codes"], dtype="<i2").reshape(row["codebooks"], -1)


def sha256(data: bytes) -> str:
    """Return the hexadecimal SHA-256 of bytes."""
    return hashlib.sha256(data).hexdigest()


def iter_clips(
    path: str | Path, sampling_rate: int | None = None, *, ids: Container[str] | None = None
) -> Iterator[tuple[dict, np.ndarray]]:
    """Yield (row without audio, mono wave [T]) of an audio table, 64 clips in memory at a time.

    With `ids` only those clips, no other is decoded.
    """
    for batch in iter_batches(path, 64):
        if ids is not None:
            asked = [clip in ids for clip in batch.column("id").to_pylist()]
            batch = batch.filter(pa.array(asked, pa.bool_()))
        for row in batch.to_pylist():
            audio = row.pop("audio")
            try:
                wave, _ = decode(audio["bytes"], sampling_rate)
            except InputError as error:
                raise InputError(f"{path}: clip {row['id']} {error}") from error
            yield row, wave


def iter_sources(path: str | Path) -> Iterator[tuple[str, bytes]]:
    """Yield (id, bytes of the audio file) of an audio table, 64 clips in memory at a time."""
    for batch in iter_batches(path, 64, ["id", "audio"]):
        for row in batch.to_pylist():
            yield row["id"], row["audio"]["bytes"]
