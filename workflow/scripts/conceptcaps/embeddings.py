"""Clips and captions through an embedder: decoded ahead of the model, pooled, stored with a key."""

import hashlib
import json
import threading
from collections import deque
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from queue import Full, Queue

import numpy as np

from conceptcaps import audiofiles, runlog
from conceptcaps.errors import InputError
from conceptcaps.fingerprint import module_fingerprint

SILENT_DBFS = -60.0  # RMS below which a clip is noted as silent
_DECODERS = 2  # threads that decode ahead of the model
_AHEAD = 8  # windows that each of them may be ahead: bounds the memory of long files
_POLL_S = 0.1


@dataclass(frozen=True)
class Embedded:
    """What became of one clip."""

    id: str
    windows: np.ndarray | None  # [W, D] float32; None: see reason
    duration_s: float  # seconds; 0 where it could not be decoded
    reason: str  # why there is no embedding; "" where there is one
    notes: tuple[str, ...]  # silent, shorter than a window: embedded all the same


def embed_clips(
    embedder, clips: Iterable[tuple], *, window_s: float, batch_size: int, total: int | None = None
) -> Iterator[Embedded]:
    """Embed clips, given as (id, source), one after another, in order.

    A source is a path, the bytes of a file, or a mono wave [T] float32 at the embedder's rate.
    Threads decode, resample and prepare windows while the model embeds `batch_size` of them, which
    may be of several clips. A clip that cannot be decoded is yielded with its reason.

    Raises:
        InputError: an embedding is not finite.
    """
    size = round(window_s * embedder.sampling_rate_hz)
    waiting, pending = deque(), []  # clips whose windows are not all embedded; windows

    def flush(count: int) -> None:
        batch, vectors = pending[:count], []
        del pending[:count]
        if batch:
            vectors = embedder.embed_prepared([features for _, features in batch])
            check_finite(vectors, "audio")
        for (clip, _), vector in zip(batch, vectors, strict=True):
            clip.vectors.append(vector)

    def finished() -> Iterator[Embedded]:
        while waiting and waiting[0].complete:
            yield waiting.popleft().result()

    decoded = _decode_ahead(clips, lambda source: _prepare(embedder, source, size))
    for clip in runlog.progress(decoded, what="clips", total=total):
        waiting.append(_Pending(clip.id))
        for features in clip.windows():
            waiting[-1].expected += 1
            pending.append((waiting[-1], features))
            if len(pending) >= batch_size:
                flush(batch_size)
        waiting[-1].close(clip)
        yield from finished()
    flush(len(pending))
    yield from finished()


def embed_whole(embedder, clips: Iterable[tuple], *, where: str, **sizes) -> list[np.ndarray]:
    """Embed clips as `embed_clips`; return one array [W, D] each.

    Raises:
        InputError: a clip cannot be decoded; it is named, as is `where` it lies.
    """
    found = []
    for clip in embed_clips(embedder, clips, **sizes):
        if clip.windows is None:
            raise InputError(f"{where}: clip {clip.id} {clip.reason}")
        found.append(clip.windows)
    return found


class _Pending:
    """A clip whose windows are on their way through the model."""

    def __init__(self, clip_id: str):
        self.id, self.vectors, self.expected, self.decoded = clip_id, [], 0, None

    def close(self, decoded) -> None:
        self.decoded = decoded

    @property
    def complete(self) -> bool:
        return self.decoded is not None and len(self.vectors) == self.expected

    def result(self) -> Embedded:
        reason, notes = self.decoded.reason, tuple(self.decoded.notes)
        windows = None if reason else np.stack(self.vectors)
        return Embedded(self.id, windows, self.decoded.duration_s, reason, notes)


class _Decoded:
    """Windows of a clip, put into a queue by a decoding thread and taken out by the model's."""

    def __init__(self, clip_id: str, stopped: threading.Event):
        self.id, self.reason, self.notes, self.duration_s = clip_id, "", [], 0.0
        self.queue, self.error, self.stopped = Queue(_AHEAD), None, stopped

    def fill(self, source, prepare) -> None:
        try:
            for item in prepare(source):
                self._put(item)
        except InputError as error:
            self.reason = str(error)
        except BaseException as error:
            self.error = error  # raised where the windows are taken
        self._put(None)

    def _put(self, item) -> None:
        while not self.stopped.is_set():
            try:
                return self.queue.put(item, timeout=_POLL_S)
            except Full:
                continue

    def windows(self) -> Iterator:
        while (item := self.queue.get()) is not None:
            if isinstance(item, str):
                self.notes.append(item)
            elif isinstance(item, float):
                self.duration_s = item
            else:
                yield item
        if self.error:
            raise self.error


def _decode_ahead(clips: Iterable[tuple], prepare) -> Iterator[_Decoded]:
    """Yield clips in order while `_DECODERS` threads fill the next ones."""
    stopped, ahead, clips = threading.Event(), deque(), iter(clips)
    pool = ThreadPoolExecutor(_DECODERS)

    def start() -> None:
        following = next(clips, None)
        if following is not None:
            clip_id, source = following
            ahead.append(_Decoded(clip_id, stopped))
            pool.submit(ahead[-1].fill, source, prepare)

    try:
        for _ in range(_DECODERS):
            start()
        while ahead:
            yield ahead.popleft()
            start()
    finally:
        stopped.set()
        pool.shutdown()


def _prepare(embedder, source, size: int) -> Iterator:
    """Yield a clip's prepared windows, then its duration (a float) and notes (strings) on it."""
    samples, energy = 0, 0.0

    def blocks() -> Iterator[np.ndarray]:
        nonlocal samples, energy
        whole = isinstance(source, np.ndarray)
        rate = embedder.sampling_rate_hz
        for block in [source] if whole else audiofiles.stream_mono(source, rate):
            samples += len(block)
            energy += float(np.square(block, dtype=np.float64).sum())
            yield block

    for window in audiofiles.stream_windows(blocks(), size=size):
        yield embedder.prepare(window)
    if not samples:
        raise InputError("holds no samples")
    yield samples / embedder.sampling_rate_hz
    if samples < size:
        yield f"{samples / embedder.sampling_rate_hz:.2f} s: repeated to fill a window"
    if energy / samples < 10 ** (SILENT_DBFS / 10):
        yield "silent"


def embed_texts(embedder, texts: list[str], *, batch_size: int) -> tuple[np.ndarray, np.ndarray]:
    """Embed captions as [N, D], and tell which [N] were cut at the text limit.

    Raises:
        InputError: an embedding is not finite.
    """
    batches = [texts[i : i + batch_size] for i in range(0, len(texts), batch_size)]
    parts = [embedder.embed_text(batch) for batch in batches]
    vectors, cut = (np.concatenate(part) for part in zip(*parts, strict=True))
    check_finite(vectors, "text")
    print(f"{cut.sum()} of {len(texts)} captions were cut at the text limit")
    return vectors, cut


def mean_pairwise_cosine(vectors: np.ndarray) -> float:
    """Return the mean cosine over all pairs of different rows of unit vectors [N, D]."""
    n = len(vectors)
    total = vectors.sum(axis=0, dtype=np.float64)
    return float((total @ total - n) / (n * (n - 1)))


def pool(vectors: np.ndarray, *, unit_norm: bool = True) -> np.ndarray:
    """Return the mean of a clip's window embeddings [W, D], renormalised unless told not to [D]."""
    mean = vectors.mean(axis=0)
    return mean / np.linalg.norm(mean) if unit_norm else mean


def embedder_key(embedder, *, window_s: float) -> str:
    """Return a hash of an embedder's weights and of the preprocessing of its clips."""
    described = {
        "embedder": embedder.name,
        "weights": embedder.weights_sha256(),
        "sampling_rate_hz": embedder.sampling_rate_hz,
        "window_s": window_s,
        "resampler": audiofiles.RESAMPLER,
        "code": [module_fingerprint(file) for file in (audiofiles.__file__, embedder.code)],
    }
    return hashlib.sha256(json.dumps(described, sort_keys=True).encode()).hexdigest()


def clip_key(source: bytes | str | Path, embedder_hash: str) -> str:
    """Return what an embedding is stored under: hash of the file's bytes and of `embedder_key`."""
    digest = hashlib.sha256(embedder_hash.encode())
    if isinstance(source, bytes):
        digest.update(source)
    else:
        with Path(source).open("rb") as file:
            while block := file.read(2**20):
                digest.update(block)
    return digest.hexdigest()


def check_finite(vectors: np.ndarray, what: str) -> None:
    """Check embeddings [N, D].

    Raises:
        InputError: one is not finite, or all zero.
    """
    if not np.isfinite(vectors).all() or not vectors.any(axis=1).all():
        raise InputError(
            f"the embedder's {what} embeddings are not finite, or zero: the checkpoint is "
            "broken. Fetch it again."
        )
