"""Download MusicCaps' own clips; every one that does not arrive gets its reason."""

import json
import re
import shutil
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import soxr
import yt_dlp

from conceptcaps.clips import decode, encode_flac, sha256
from conceptcaps.errors import InputError
from conceptcaps.io import Sidecar, read_rows, write_ledger, write_table
from conceptcaps.runlog import progress
from conceptcaps.schemas import LEDGER, REAL_AUDIO
from conceptcaps.seeding import item_rng

SOCKET_TIMEOUT_S = 30.0  # a server that is silent for longer counts as 'timeout'

STATES = (  # ledger state and the words of an error that mean it; the first match counts
    ("bot", r"not a bot|captcha|HTTP Error 429|rate.limited|try again later|unusual traffic"),
    ("geo", r"(in|from) your (country|location|region)|geo.?restrict|geo.?block"),
    ("age", r"confirm your age|age.restricted|inappropriate for some"),
    ("private", r"private|members.only|join this channel|requires payment|login required"),
    ("timeout", r"timed? ?out"),
    (
        "removed",
        r"video (is )?(unavailable|not available)|removed|no longer available|account.*terminated"
        r"|does not exist|isn.t available|HTTP Error (404|410)",
    ),
)
TRANSIENT = r"HTTP Error 5\d\d|connection (reset|aborted|refused)|IncompleteRead|bytes read"

_OUTCOME = pa.schema([*REAL_AUDIO, *(LEDGER.field(name) for name in ("status", "reason"))])


@dataclass(frozen=True)
class Spec:
    """Where the clips are and how politely to ask for them."""

    url: str  # template with {ytid} and, where the server cuts clips, {start_s} and {end_s}
    sampling_rate_hz: int  # of the stored clips, Hz
    duration_s: float  # of a clip, s
    duration_tolerance_s: float  # a clip that is shorter by more is 'short', s
    requests_per_minute: float  # at most
    retries: int  # after a failure that may pass, >= 0
    min_yield: float  # share of clips that must arrive, [0, 1]


@dataclass(frozen=True)
class Lost:
    """Why a clip did not arrive."""

    status: str  # a ledger state
    reason: str
    transient: bool  # it may arrive when asked for again


class Pace:
    """Keeps requests at least `interval_s` apart."""

    def __init__(self, interval_s: float):
        """Allow the first request at once."""
        self.interval_s, self.next_s = interval_s, 0.0

    def wait(self, extra_s: float = 0.0) -> None:
        """Sleep until the next request is due, and `extra_s` on top."""
        time.sleep(max(self.next_s - time.monotonic(), 0.0) + extra_s)
        self.next_s = time.monotonic() + self.interval_s


def retrieve_shard(*, clips, shard: int, shard_items: int, spec: Spec, output, ledger) -> None:
    """Download clips `shard * shard_items` onwards of the MusicCaps table, mono FLAC at one rate.

    Finished clips, and losses that are final, are kept in a sidecar and not asked for again. When
    the server takes us for a robot, no more requests are made: the rest of the shard is 'bot'.

    Args:
        clips: the MusicCaps table.
        shard: number of the shard, from 0.
        shard_items: rows of the table in a shard.
        spec: the source and its limits.
        output: the audio table; clips that were lost are not in it.
        ledger: one row per requested clip: ok, private, removed, geo, age, bot, timeout, short or
            error, with the reason.

    Raises:
        InputError: fewer than `spec.min_yield` of the clips arrived, or the server sends a format
            that needs ffmpeg, and it is not installed.
    """
    rows = read_rows(clips, ["ytid", "start_s"])[shard * shard_items : (shard + 1) * shard_items]
    wanted = [spec.url, spec.sampling_rate_hz, spec.duration_s, spec.duration_tolerance_s, rows]
    sidecar = Sidecar(output, key=json.dumps(wanted), code=__file__, schema=_OUTCOME)
    pace = Pace(60 / spec.requests_per_minute)
    unsettled, refused = {}, None
    for i, row in enumerate(progress(rows, what="clips")):
        if i in sidecar:
            continue
        outcome = refused or retrieve_clip(row["ytid"], row["start_s"], spec, pace)
        if isinstance(outcome, dict):
            sidecar.write(i, [{**outcome, "status": "ok", "reason": ""}])
            continue
        loss = {"id": row["ytid"], "status": outcome.status, "reason": outcome.reason}
        if outcome.status == "bot":
            refused = outcome
        if outcome.transient:
            unsettled[i] = loss
        else:
            sidecar.write(i, [loss])
    _write(sidecar, unsettled, rows, spec, output, ledger)


def _write(sidecar: Sidecar, unsettled: dict, rows, spec: Spec, output, ledger) -> None:
    kept = iter(sidecar.rows())
    outcomes = [unsettled[i] if i in unsettled else next(kept) for i in range(len(rows))]
    arrived = [row for row in outcomes if row["status"] == "ok"]
    write_table(
        output, [{name: row[name] for name in REAL_AUDIO.names} for row in arrived], REAL_AUDIO
    )
    write_ledger(
        ledger,
        [{name: row[name] for name in LEDGER.names} for row in outcomes],
        min_yield=spec.min_yield,
    )
    sidecar.close()


def retrieve_clip(ytid: str, start_s: float, spec: Spec, pace: Pace) -> dict | Lost:
    """Return the row of one clip, or why it was lost, after `spec.retries` retries.

    The k-th retry waits 2^k request intervals, times a factor in [0.5, 1.5) of the clip's own.
    """
    jitter = item_rng(0, "retrieve_clip_audio", ytid)
    for attempt in range(spec.retries + 1):
        back_off = pace.interval_s * 2**attempt * (0.5 + jitter.random()) if attempt else 0.0
        pace.wait(back_off)
        with tempfile.TemporaryDirectory() as directory:
            try:
                path, sectioned = _download(ytid, start_s, spec, Path(directory))
            except Exception as error:  # the ledger's boundary: this clip is lost, not the shard
                outcome = classify(error)
            else:
                _refuse_without_ffmpeg(path)
                outcome = _row(path, ytid, 0.0 if sectioned else start_s, spec)
        if isinstance(outcome, dict) or outcome.status == "bot" or not outcome.transient:
            break
    return outcome


def classify(error: Exception) -> Lost:
    """Return the ledger state that an error's text means."""
    reason = " ".join(re.sub(r"\x1b\[[\d;]*[A-Za-z]", "", str(error)).split())
    # The clip's id and address are not what happened, and could hold any of the words.
    said = re.sub(r"^(ERROR: )?(\[[\w:]+\] \S+: )?|https?://\S+", "", reason)
    reason = f"{type(error).__name__}: {reason}"
    for status, words in STATES:
        if re.search(words, said, re.IGNORECASE):
            return Lost(status, reason, transient=status in ("bot", "timeout"))
    return Lost("error", reason, transient=bool(re.search(TRANSIENT, said, re.IGNORECASE)))


def _download(ytid: str, start_s: float, spec: Spec, directory: Path) -> tuple[Path, bool]:
    """Download a clip; return its file and whether the file starts where the clip starts."""
    end_s = start_s + spec.duration_s
    cut_by_server = "{start_s}" in spec.url
    cut_by_us = bool(shutil.which("ffmpeg")) and not cut_by_server
    options = {
        "format": "bestaudio/best",
        "outtmpl": {"default": str(directory / "clip.%(ext)s")},
        "quiet": True,
        "noprogress": True,
        "noplaylist": True,
        "cachedir": False,
        "socket_timeout": SOCKET_TIMEOUT_S,
        "retries": 0,
        "fragment_retries": 0,
        "extractor_retries": 0,
    }
    if cut_by_us:
        options["download_ranges"] = yt_dlp.utils.download_range_func(None, [(start_s, end_s)])
        options["force_keyframes_at_cuts"] = True
        options["postprocessors"] = [{"key": "FFmpegExtractAudio", "preferredcodec": "wav"}]
    url = spec.url.format(ytid=ytid, start_s=start_s, end_s=end_s)
    with yt_dlp.YoutubeDL(options) as downloader:
        downloader.download([url])
    files = sorted(directory.iterdir())
    if not files:
        raise InputError(f"{url}: nothing was downloaded")
    return files[0], cut_by_us or cut_by_server


def _refuse_without_ffmpeg(path: Path) -> None:
    """Stop the shard at a container that only ffmpeg opens: every other clip would fail as well."""
    with path.open("rb") as file:
        head = file.read(12)
    if head.startswith(b"\x1a\x45\xdf\xa3") or head[4:8] == b"ftyp":  # Matroska and WebM, MP4
        raise InputError(
            f"{path.name}: the server sends WebM or MP4, which cannot be decoded without ffmpeg. "
            "Install ffmpeg (it is in conda-forge and in every system's packages) and run again."
        )


def _row(path: Path, ytid: str, start_s: float, spec: Spec) -> dict | Lost:
    try:
        wave, rate = decode(path)
    except InputError as error:
        return Lost("error", str(error).replace(str(path), path.name), transient=False)
    wave = cut(wave, rate, start_s=start_s, spec=spec)
    if isinstance(wave, Lost):
        return wave
    if not wave.any():
        return Lost("error", "holds nothing but silence", transient=False)
    if rate != spec.sampling_rate_hz:
        wave = soxr.resample(wave, rate, spec.sampling_rate_hz)
    data, _ = encode_flac(wave, spec.sampling_rate_hz, peak=1.0)
    return {
        "id": ytid,
        "audio": {"bytes": data, "path": f"{ytid}.flac"},
        "sampling_rate": spec.sampling_rate_hz,
        "duration_s": len(wave) / spec.sampling_rate_hz,
        "sha256": sha256(data),
    }


def cut(wave: np.ndarray, rate: int, *, start_s: float, spec: Spec) -> np.ndarray | Lost:
    """Return the clip [T] of a wave at `rate` Hz.

    A wave as long as the clip is the clip; a longer one holds it from `start_s` on.
    """
    length = round(spec.duration_s * rate)
    tolerance = round(spec.duration_tolerance_s * rate)
    if len(wave) > length + tolerance:
        start = round(start_s * rate)
        wave = wave[start : start + length]
    if len(wave) < length - tolerance:
        reason = f"{len(wave) / rate:.2f} s of {spec.duration_s:.2f} s"
        return Lost("short", reason, transient=False)
    return wave
