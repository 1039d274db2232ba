"""The genre corpus: GTZAN (Tzanetakis and Cook 2002), from hub or folder, or a synthetic one."""

import tarfile
import tempfile
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from conceptcaps import clips, io, runlog, seeding
from conceptcaps.errors import InputError
from conceptcaps.schemas import GENRE_CLIPS

GENRES = (
    "blues", "classical", "country", "disco", "hiphop", "jazz", "metal", "pop", "reggae", "rock",
)  # fmt: skip
_SUFFIXES = (".wav", ".au", ".flac", ".mp3")
_ROWS_AT_ONCE = 64  # clips in memory: 30 s of FLAC at 22,050 Hz are about 0.7 MB


@dataclass(frozen=True)
class Source:
    """Config section `gtzan`, without the classifier."""

    kind: str  # hub | folder | synthetic
    path: str | None  # dataset id, or a folder
    revision: str | None  # hub only
    sampling_rate_hz: int  # of the table
    clips_per_genre: int  # synthetic only
    clip_s: float  # synthetic only
    min_yield: float  # share of the files that must decode, in [0, 1]


class _Request(NamedTuple):
    id: str
    genre: str
    file: Path | None  # None: to be synthesised


def retrieve(source: Source, *, seed: int, output: str | Path, ledger: str | Path) -> None:
    """Write the corpus as one table (`schemas.GENRE_CLIPS`): mono FLAC, resampled.

    A file that cannot be decoded becomes a ledger row with status "corrupt" and the reason. Clips
    stand in the order of `GENRES`, then by id. A batch of clips is in memory at a time.

    Raises:
        InputError: the source cannot be had, is not laid out as GTZAN, a genre has no usable clip,
            or fewer than `min_yield` of the files decode.
    """
    fates = []
    with _requested(source, Path(output)) as requests, io.atomic(output) as temporary:
        with pq.ParquetWriter(temporary, GENRE_CLIPS, **io.PARQUET) as writer:
            rows = []
            for request in runlog.progress(requests, what="clips"):
                try:
                    rows.append(_row(request, _wave(request, source, seed), source))
                    fates.append({"id": request.id, "status": "ok", "reason": ""})
                except InputError as error:
                    fates.append({"id": request.id, "status": "corrupt", "reason": str(error)})
                if len(rows) == _ROWS_AT_ONCE:
                    writer.write_table(pa.Table.from_pylist(rows, GENRE_CLIPS))
                    rows = []
            writer.write_table(pa.Table.from_pylist(rows, GENRE_CLIPS))
        io.write_ledger(ledger, fates, min_yield=source.min_yield)
        _check_genres(requests, fates)
    lost = sum(fate["status"] != "ok" for fate in fates)
    print(f"{len(fates) - lost} clips of {len(GENRES)} genres, {lost} corrupt")


def _wave(request: _Request, source: Source, seed: int) -> np.ndarray:
    if request.file:
        return clips.decode(request.file, source.sampling_rate_hz)[0]
    from conceptcaps import grammar, synth  # the miniature world, else not needed

    rng = seeding.item_rng(seed, "synthetic_gtzan", request.id)
    tags = grammar.sample_tags(rng, genre=request.genre.replace("hiphop", "hip hop"))
    return synth.render(
        tags,
        seed=seeding.item_seed(seed, "synthetic_gtzan_audio", request.id),
        duration_s=source.clip_s,
        sampling_rate_hz=source.sampling_rate_hz,
    )


def _row(request: _Request, wave: np.ndarray, source: Source) -> dict:
    data, _ = clips.encode_flac(wave, source.sampling_rate_hz, peak=1.0)
    return {
        "id": request.id,
        "audio": {"bytes": data, "path": f"{request.id}.flac"},
        "sampling_rate": source.sampling_rate_hz,
        "duration_s": len(wave) / source.sampling_rate_hz,
        "sha256": clips.sha256(data),
        "genre": request.genre,
    }


def _check_genres(requests: list[_Request], fates: list[dict]) -> None:
    usable = Counter(
        request.genre
        for request, fate in zip(requests, fates, strict=True)
        if fate["status"] == "ok"
    )
    empty = [genre for genre in GENRES if not usable[genre]]
    if empty:
        raise InputError(
            f"gtzan: no usable clip of {', '.join(empty)} (found: {dict(usable)}). "
            "Give a folder in which each of the ten genres has clips that can be decoded."
        )


@contextmanager
def _requested(source: Source, output: Path) -> Iterator[list[_Request]]:
    """List the clips of a source; a hub's archive stays unpacked as long as the context is open."""
    if source.kind == "synthetic":
        numbers = range(source.clips_per_genre)
        yield [_Request(f"{genre}.{k:05d}", genre, None) for genre in GENRES for k in numbers]
    elif source.kind == "folder":
        yield list_clips(Path(source.path))
    else:
        snapshot = _download(source)
        output.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=output.parent, prefix=".gtzan.") as unpacked:
            archives = sorted(snapshot.rglob("*.tar.gz"))
            for archive in archives:
                unpack(archive, Path(unpacked))
            yield list_clips(Path(unpacked) if archives else snapshot)


def _download(source: Source) -> Path:
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, LocalEntryNotFoundError

    try:
        return Path(snapshot_download(source.path, repo_type="dataset", revision=source.revision))
    except (HfHubHTTPError, LocalEntryNotFoundError, OSError) as error:
        raise InputError(
            f"gtzan: '{source.path}' at revision '{source.revision}' cannot be downloaded "
            f"({error}). Check the network, or download it by hand and set kind: folder and path."
        ) from error


def unpack(archive: Path, folder: Path) -> None:
    """Unpack a tar archive; members that would leave `folder` are refused.

    Raises:
        InputError: the archive is damaged or dangerous.
    """
    try:
        with tarfile.open(archive) as tar:
            tar.extractall(folder, filter="data")
    except (tarfile.TarError, EOFError, OSError) as error:
        raise InputError(
            f"{archive}: cannot be unpacked ({type(error).__name__}: {error}). Delete it and "
            "download it again, or unpack it by hand and set gtzan.kind: folder."
        ) from error


def list_clips(folder: Path) -> list[_Request]:
    """List the clips of a folder laid out as GTZAN: `<genre>/<genre>.000NN.wav` (or .au).

    Args:
        folder: holds the genre folders, or holds a folder that does (such as `genres_original`).

    Raises:
        InputError: it is no folder, has no genre folders with audio, or two files have one id.
    """
    if not folder.is_dir():
        raise InputError(f"gtzan.path: {folder} is not a folder. Unpack it and name the folder.")
    children = sorted(child for child in folder.iterdir() if child.is_dir())
    roots = [root for root in (folder, *children) if any(_audio_files(root, g) for g in GENRES)]
    if not roots:
        raise InputError(_unlike_gtzan(folder))
    requests = []
    for genre in GENRES:
        files = _audio_files(roots[0], genre)
        ids = [f.stem if f.stem.startswith(f"{genre}.") else f"{genre}.{f.stem}" for f in files]
        twice = [name for name, count in Counter(ids).items() if count > 1]
        if twice:
            raise InputError(f"{roots[0] / genre}: two files are named {twice[0]}. Keep one.")
        requests += [_Request(i, genre, file) for i, file in zip(ids, files, strict=True)]
    return requests


def _audio_files(root: Path, genre: str) -> list[Path]:
    # macOS leaves files named "._blues.00000.wav" in archives; they hold no audio.
    return sorted(
        file
        for file in (root / genre).glob("*")
        if file.suffix.lower() in _SUFFIXES and not file.name.startswith(".")
    )


def _unlike_gtzan(folder: Path) -> str:
    found = sorted(child.name + "/" * child.is_dir() for child in folder.iterdir())
    named = [genre for genre in GENRES if (folder / genre).is_dir()]
    problem = (
        f"has genre folders ({', '.join(named)}) but no audio file ({', '.join(_SUFFIXES)}) in them"
        if named
        else f"has none of GTZAN's genre folders ({', '.join(GENRES)})"
    )
    held = (
        f"It holds {', '.join(found[:8])}{', ...' * (len(found) > 8)}" if found else "It is empty"
    )
    return (
        f"gtzan.path: {folder} {problem}. {held}. Name the folder `genres_original` "
        "(<genre>/<genre>.000NN.wav) or the one that holds it."
    )
