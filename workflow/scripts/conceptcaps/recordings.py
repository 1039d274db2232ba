"""Clips that are not played here, as an arm: a folder's (see `audiofolder`), or MusicCaps' own."""

import io as stdio
from pathlib import Path

import soundfile as sf

from conceptcaps import audiofiles, clips, io, runlog, schemas
from conceptcaps.audiofolder import METADATA, read_captions
from conceptcaps.errors import InputError

_TOGETHER = 32  # clips in memory
_RATE_HZ = 16_000  # to which a file is decoded to see that it can be


def collect_folder(
    *, folder, shard: int, shard_items: int, min_yield: float, audio, captions, ledger
) -> None:
    """Write clips [shard * shard_items, ...) of a folder, in the order of its `metadata.csv`.

    Files are taken as they are; a clip's id is its file name. One batch is in memory at a time.
    Ledger: ok, no_caption, missing, corrupt.

    Args:
        folder: of audio files and a `metadata.csv`.
        shard: number of the shard, from 0.
        shard_items: clips a shard; the last one may have fewer.
        min_yield: share of the clips, in [0, 1], that must not be lost.
        audio: table `schemas.REAL_AUDIO` to write.
        captions: table `schemas.CAPTIONS` to write, of the same clips.
        ledger: table `schemas.LEDGER` to write.

    Raises:
        InputError: as `audiofolder.read_captions`, or too many clips were lost.
    """
    listed = list(read_captions(folder).items())[shard * shard_items : (shard + 1) * shard_items]
    fates, texts = [], []

    def batches():
        rows = []
        for name, caption in runlog.progress(listed, what="clips"):
            row, fate = _row(Path(folder), name, caption)
            fates.append(fate)
            if row:
                rows.append(row)
                texts.append(_caption(name, caption, source=Path(folder).name))
            if len(rows) == _TOGETHER:
                yield rows
                rows = []
        yield rows

    io.write_stream(audio, batches(), schemas.REAL_AUDIO)
    io.write_table(captions, texts, schemas.CAPTIONS)
    io.write_ledger(ledger, fates, min_yield=min_yield)


def collect_clips(*, table, rows, audio, captions, ledger) -> None:
    """Write MusicCaps' own clips that arrived, with their human captions, as an arm's shard.

    Args:
        table: MusicCaps, `schemas.CLIPS`.
        rows: a shard of downloaded clips, `schemas.REAL_AUDIO`.
        audio: table `schemas.REAL_AUDIO` to write.
        captions: table `schemas.CAPTIONS` to write.
        ledger: table `schemas.LEDGER` to write; lost clips are in that of the download.
    """
    known = {row["ytid"]: row["caption"] for row in io.read_rows(table, ["ytid", "caption"])}
    ids = io.read_table(rows, ["id"])["id"].to_pylist()
    batches = (batch.to_pylist() for batch in io.iter_batches(rows, _TOGETHER))
    io.write_stream(audio, batches, schemas.REAL_AUDIO)
    texts = [_caption(key, known[key], source="human") for key in ids]
    io.write_table(captions, texts, schemas.CAPTIONS)
    fates = [{"id": key, "status": "ok", "reason": ""} for key in ids]
    io.write_ledger(ledger, fates, min_yield=0.0)


def _caption(key: str, text: str, *, source: str) -> dict:
    """Return a row of `schemas.CAPTIONS`: no model was asked, and what it was asked is null."""
    return {"id": key, "caption": text, "model": source}


def _row(folder: Path, name: str, caption: str) -> tuple[dict | None, dict]:
    """Return a clip's row, or None, and its row of the ledger."""

    def lost(status: str, reason: str) -> tuple[None, dict]:
        return None, {"id": name, "status": status, "reason": reason}

    path = folder / name
    if not caption.strip():
        return lost("no_caption", f"{METADATA} has none")
    if not path.is_file():
        return lost("missing", f"there is no file {path}")
    data = path.read_bytes()
    try:
        for _ in audiofiles.stream_mono(data, _RATE_HZ):
            pass
    except InputError as error:
        return lost("corrupt", str(error))
    found = sf.info(stdio.BytesIO(data))
    row = {
        "id": name,
        "audio": {"bytes": data, "path": name},
        "sampling_rate": found.samplerate,
        "duration_s": found.duration,
        "sha256": clips.sha256(data),
    }
    return row, {"id": name, "status": "ok", "reason": ""}
