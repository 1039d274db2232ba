"""The reference that sets of clips are held against, and its controls, as embeddings.

Controls tell how far a distance can move: white noise, silence, the reference itself low-passed.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import soxr

from conceptcaps import audiofolder, clips, embeddings, io, schemas, seeding
from conceptcaps.clap import Spec, load_embedder
from conceptcaps.errors import InputError

_NOISE_RMS = 0.1  # white noise at -20 dBFS: about the level of music, with few peaks beyond 1


@dataclass(frozen=True)
class Controls:
    """Config section `scores.fad`, as far as the controls read it."""

    control_clips: int  # of each kind
    lowpass_hz: list[float]  # a kind for each cut-off frequency


def embed_reference(
    *, tables: list, folder, controls: Controls, spec: Spec, seed: int, output, controls_output,
    ledger,
) -> None:  # fmt: skip
    """Embed the reference and its controls as `schemas.EMBEDDINGS`.

    Args:
        tables: audio tables; or else
        folder: of audio files, whose ids are their paths in it.
        controls: config.
        spec: config.
        seed: the global seed; each noise clip has its own.
        output: embeddings of the reference.
        controls_output: embeddings of the controls, see `embed_controls`.
        ledger: one row per clip: "ok", with notes on silent and short ones, or "corrupt".

    Raises:
        InputError: no clip can be decoded; the checkpoint is missing or broken.
    """
    where = folder or tables[0]

    def sources() -> Iterator[tuple]:
        return folder_sources(folder) if folder else _table_sources(tables)

    embedder = load_embedder(spec)
    found = list(embed_set(embedder, sources(), spec=spec))
    io.write_table(ledger, [fate(clip) for clip, _ in found], schemas.LEDGER)
    kept = [(clip, key) for clip, key in found if clip.windows is not None]
    if not kept:
        raise InputError(f"{where}: no clips. A Frechet distance needs a reference corpus.")
    write_embeddings(output, embedder, kept)
    duration_s = float(np.median([clip.duration_s for clip, _ in kept]))
    of_controls = embed_controls(
        embedder,
        sources(),
        ids=[clip.id for clip, _ in kept],
        controls=controls,
        duration_s=duration_s,
        spec=spec,
        seed=seed,
    )
    write_embeddings(controls_output, embedder, [(clip, "") for clip in of_controls])


def folder_sources(folder: str | Path) -> Iterator[tuple[str, Path]]:
    """Yield (path in the folder, path) of a folder's audio files."""
    for path in audiofolder.list_audio(folder):
        yield path.relative_to(folder).as_posix(), path


def _table_sources(tables: Iterable) -> Iterator[tuple[str, bytes]]:
    for table in tables:
        yield from clips.iter_sources(table)


def embed_set(
    embedder, sources: Iterable[tuple], *, spec: Spec
) -> Iterator[tuple[embeddings.Embedded, str]]:
    """Yield what became of each source, and the key under which its embedding is kept."""
    hashed, keys = embeddings.embedder_key(embedder, window_s=spec.window_s), []

    def keyed() -> Iterator[tuple]:
        for clip_id, source in sources:
            keys.append(embeddings.clip_key(source, hashed))
            yield clip_id, source

    sizes = {"window_s": spec.window_s, "batch_size": spec.batch_size}
    for k, clip in enumerate(embeddings.embed_clips(embedder, keyed(), **sizes)):
        yield clip, keys[k]


def fate(clip: embeddings.Embedded) -> dict:
    """Return a clip's row of a ledger."""
    status = "ok" if clip.windows is not None else "corrupt"
    return {"id": clip.id, "status": status, "reason": clip.reason or "; ".join(clip.notes)}


def embed_controls(
    embedder,
    sources: Iterable[tuple],
    *,
    ids: list[str],
    controls: Controls,
    duration_s: float,
    spec: Spec,
    seed: int,
) -> list[embeddings.Embedded]:
    """Embed the controls of a reference.

    noise-0000, ...: Gaussian white noise at -20 dBFS RMS; silence-0000, ...: samples 0, hence equal
    embeddings; lowpass_4000-0000, ...: clips of the reference, picked evenly over it (its first
    ones may be all of a genre), without what is above 4,000 Hz.

    Args:
        embedder: that of the reference.
        sources: the reference, (id, source) of each clip.
        ids: of those of its clips that can be decoded.
        controls: config.
        duration_s: of noise and silence.
        spec: config.
        seed: the global seed.
    """
    rate, samples = embedder.sampling_rate_hz, round(duration_s * embedder.sampling_rate_hz)
    numbers = range(controls.control_clips)
    sizes = {"window_s": spec.window_s, "batch_size": spec.batch_size}
    picked = np.linspace(0, len(ids) - 1, min(controls.control_clips, len(ids))).astype(int)
    chosen = {ids[i] for i in picked}

    def waves() -> Iterator[tuple[str, np.ndarray]]:
        for k in numbers:
            yield f"noise-{k:04d}", _white_noise(f"noise-{k:04d}", samples, seed)
        yield "silence-0000", np.zeros(samples, np.float32)
        for clip_id, source in sources:
            if clip_id not in chosen:
                continue
            wave, _ = clips.decode(source, rate)
            for cutoff in controls.lowpass_hz:
                yield f"lowpass_{cutoff:g}-{next(counts[cutoff]):04d}", low_pass(wave, rate, cutoff)

    counts = {cutoff: iter(numbers) for cutoff in controls.lowpass_hz}
    found = list(embeddings.embed_clips(embedder, waves(), **sizes))
    silence = next(clip for clip in found if clip.id == "silence-0000")
    copies = [
        embeddings.Embedded(f"silence-{k:04d}", silence.windows, duration_s, "", silence.notes)
        for k in numbers[1:]
    ]
    return sorted([*found, *copies], key=lambda clip: clip.id)


def low_pass(wave: np.ndarray, rate: int, cutoff_hz: float) -> np.ndarray:
    """Return a wave [T] without what is above a frequency: resampled to twice it, and back."""
    if 2 * cutoff_hz >= rate:
        return wave
    there_and_back = soxr.resample(soxr.resample(wave, rate, 2 * cutoff_hz), 2 * cutoff_hz, rate)
    return np.resize(there_and_back, len(wave))


def _white_noise(noise_id: str, samples: int, seed: int) -> np.ndarray:
    rng = seeding.item_rng(seed, "clap/controls", noise_id)
    return _NOISE_RMS * rng.standard_normal(samples, dtype=np.float32)


def write_embeddings(path, embedder, found: list[tuple[embeddings.Embedded, str]]) -> None:
    """Write pooled embeddings of clips, each with its key, as `schemas.EMBEDDINGS`."""
    rows = [
        {
            "id": clip.id,
            "audio_embedding": embeddings.pool(clip.windows, unit_norm=embedder.unit_norm),
            "embedding_key": key,
        }
        for clip, key in found
    ]
    io.write_table(path, rows, schemas.EMBEDDINGS)
