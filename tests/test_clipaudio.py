"""Clip audio from a real server on the loopback interface, good and bad."""

import http.server
import io
import socket
import threading
import time
from collections import Counter

import numpy as np
import pytest
import soundfile as sf
from yt_dlp.utils import DownloadError

from conceptcaps import clipaudio, schemas
from conceptcaps.errors import InputError
from conceptcaps.io import read_rows, write_table

RATE_HZ = 16000
CODES = {"gone": 404, "forbidden": 403, "deleted": 410, "busy": 429, "down": 503}


def audio(seconds, *, form="FLAC", level=0.5) -> bytes:
    """Return a tone whose pitch is 100 Hz times (1 + the second it is in)."""
    t = np.arange(int(RATE_HZ * seconds)) / RATE_HZ
    buffer = io.BytesIO()
    sf.write(buffer, level * np.sin(2 * np.pi * 100 * (1 + np.floor(t)) * t), RATE_HZ, format=form)
    return buffer.getvalue()


FILES = {
    "whole": ("audio/flac", audio(5)),
    "-dash_id": ("audio/flac", audio(1)),
    "wave": ("audio/wav", audio(1, form="WAV")),
    "near": ("audio/flac", audio(0.98)),
    "short": ("audio/flac", audio(0.6)),
    "ends": ("audio/flac", audio(2.5)),
    "silent": ("audio/flac", audio(1, level=0.0)),
    "corrupt": ("audio/flac", b"fLaC" + bytes(range(256)) * 10),
    "mp4": ("video/mp4", b"\0\0\0\x18ftypmp42" + bytes(2000)),
    "slow": ("audio/flac", audio(1)),
    "once": ("audio/flac", audio(1)),
    "truncated": ("audio/flac", audio(1)),  # the connection ends after half of it
}


class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        name = self.path.strip("/").split(".")[0]
        self.server.asked[name] += 1
        self.server.times.append(time.monotonic())
        if name == "slow":
            time.sleep(2.5)
        if name in CODES or (name == "once" and self.server.asked[name] == 1):
            self.send_error(CODES.get(name, 503))
            return
        kind, data = FILES[name]
        self.send_response(200)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data[: len(data) // 2] if name == "truncated" else data)

    def log_message(self, *_):
        pass


@pytest.fixture
def server(monkeypatch):
    monkeypatch.setattr(clipaudio, "SOCKET_TIMEOUT_S", 1.0)
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as running:
        running.asked, running.times = Counter(), []
        threading.Thread(target=running.serve_forever, daemon=True).start()
        yield running
        running.shutdown()


def spec_of(server, **changes):
    keys = {
        "url": f"http://127.0.0.1:{server.server_port}/{{ytid}}.flac",
        "sampling_rate_hz": 8000,
        "duration_s": 1.0,
        "duration_tolerance_s": 0.05,
        "requests_per_minute": 60000,
        "retries": 1,
        "min_yield": 0.0,
    }
    return clipaudio.Spec(**(keys | changes))


def write_clips(path, names, start_s=2):
    rows = [dict.fromkeys(schemas.CLIPS.names) | {"ytid": n, "start_s": start_s} for n in names]
    write_table(path, rows, schemas.CLIPS)


def retrieve(folder, spec, *, shard=0, shard_items=100):
    clipaudio.retrieve_shard(
        clips=folder / "clips.parquet",
        shard=shard,
        shard_items=shard_items,
        spec=spec,
        output=folder / "audio.parquet",
        ledger=folder / "ledger.parquet",
    )
    ledger = read_rows(folder / "ledger.parquet")
    rows = {row["id"]: row for row in read_rows(folder / "audio.parquet")}
    return rows, {row["id"]: row["status"] for row in ledger}, ledger


def pitch(row):
    wave, rate = sf.read(io.BytesIO(row["audio"]["bytes"]))
    return np.abs(np.fft.rfft(wave)).argmax() * rate / len(wave)


def test_every_clip_gets_its_state(tmp_path, server):
    expected = {
        "whole": "ok",
        "-dash_id": "ok",
        "wave": "ok",
        "near": "ok",
        "once": "ok",
        "gone": "removed",
        "deleted": "removed",
        "forbidden": "error",
        "down": "error",
        "slow": "timeout",
        "truncated": "error",
        "short": "short",
        "ends": "short",
        "silent": "error",
        "corrupt": "error",
    }
    write_clips(tmp_path / "clips.parquet", expected)
    rows, states, ledger = retrieve(tmp_path, spec_of(server))
    assert states == expected
    assert [row["id"] for row in ledger] == list(expected)
    assert set(rows) == {name for name, state in expected.items() if state == "ok"}
    assert all(row["reason"] for row in ledger if row["status"] != "ok")
    assert "HTTP Error 403" in next(row["reason"] for row in ledger if row["id"] == "forbidden")
    # only what can succeed is asked for again
    assert (server.asked["gone"], server.asked["forbidden"]) == (1, 1)
    assert (server.asked["down"], server.asked["slow"]) == (2, 2)
    assert server.asked["truncated"] == 4  # a try asks for the page, then for the file
    assert not (tmp_path / "audio.parquet.partial").exists()


def test_a_refused_connection_is_not_final(tmp_path, server):
    """Nobody listens at the port: every clip is lost, and asked for again by the next run."""
    write_clips(tmp_path / "clips.parquet", ["wave", "near"])
    with socket.create_server(("127.0.0.1", 0)) as closed:
        port = closed.getsockname()[1]
    nobody = spec_of(server, url=f"http://127.0.0.1:{port}/{{ytid}}.flac", min_yield=0.5)
    with pytest.raises(InputError, match="2 of 2 items were lost"):
        retrieve(tmp_path, nobody)
    lost = read_rows(tmp_path / "ledger.parquet")
    assert {row["status"] for row in lost} == {"error"} and "refused" in lost[0]["reason"]
    assert not list((tmp_path / "audio.parquet.partial").glob("*.parquet"))


def test_clips_are_cut_resampled_and_hashed(tmp_path, server):
    write_clips(tmp_path / "clips.parquet", ["whole", "wave"], start_s=2)
    rows, _, _ = retrieve(tmp_path, spec_of(server))
    for row in rows.values():
        wave, rate = sf.read(io.BytesIO(row["audio"]["bytes"]))
        assert (rate, len(wave)) == (row["sampling_rate"], 8000)
        assert row["duration_s"] == pytest.approx(1.0)
        assert row["audio"]["bytes"][:4] == b"fLaC"
    assert pitch(rows["whole"]) == pytest.approx(300, abs=2)  # the third second
    assert pitch(rows["wave"]) == pytest.approx(100, abs=2)  # already the clip
    assert sf.info(io.BytesIO(rows["whole"]["audio"]["bytes"])).subtype == "PCM_16"
    assert len({row["sha256"] for row in rows.values()}) == 2


def test_a_server_that_cuts_itself_gets_the_times_and_is_not_cut_again(tmp_path, server):
    url = f"http://127.0.0.1:{server.server_port}/{{ytid}}.flac?from={{start_s}}&to={{end_s}}"
    write_clips(tmp_path / "clips.parquet", ["whole"], start_s=2)
    rows, _, _ = retrieve(tmp_path, spec_of(server, url=url))
    assert pitch(rows["whole"]) == pytest.approx(100, abs=2)


def test_a_shard_is_its_part_of_the_table(tmp_path, server):
    write_clips(tmp_path / "clips.parquet", ["gone", "wave", "near", "whole"])
    rows, states, _ = retrieve(tmp_path, spec_of(server), shard=1, shard_items=2)
    assert list(states) == ["near", "whole"]
    assert set(rows) == {"near", "whole"}
    rows, states, _ = retrieve(tmp_path, spec_of(server), shard=9, shard_items=2)
    assert (rows, states) == ({}, {})


def test_resume_asks_only_for_what_may_still_arrive(tmp_path, server):
    write_clips(tmp_path / "clips.parquet", ["wave", "gone", "once", "near"])
    once = spec_of(server, retries=0, min_yield=0.75)
    with pytest.raises(InputError, match="2 of 4 items were lost"):
        retrieve(tmp_path, once)
    before = dict(server.asked)
    rows, states, _ = retrieve(tmp_path, spec_of(server, min_yield=0.75))
    assert states == {"wave": "ok", "gone": "removed", "once": "ok", "near": "ok"}
    assert set(rows) == {"wave", "once", "near"}
    assert {n: server.asked[n] for n in ("wave", "gone", "near")} == {
        n: before[n] for n in ("wave", "gone", "near")
    }


def test_a_killed_shard_goes_on_with_the_same_bytes(tmp_path, server, monkeypatch):
    names = ["wave", "whole", "near"]
    for folder in ("killed", "straight"):
        write_clips(tmp_path / folder / "clips.parquet", names)
    straight, _, _ = retrieve(tmp_path / "straight", spec_of(server))

    retrieve_clip = clipaudio.retrieve_clip

    def stopped(ytid, *rest):
        if ytid == "near":
            raise KeyboardInterrupt
        return retrieve_clip(ytid, *rest)

    with monkeypatch.context() as patch:
        patch.setattr(clipaudio, "retrieve_clip", stopped)
        with pytest.raises(KeyboardInterrupt):
            retrieve(tmp_path / "killed", spec_of(server))
    before = server.asked["whole"]
    resumed, _, _ = retrieve(tmp_path / "killed", spec_of(server))
    assert resumed == straight
    assert server.asked["whole"] == before


def test_other_settings_do_not_reuse_what_is_there(tmp_path, server):
    write_clips(tmp_path / "clips.parquet", ["wave", "gone"])
    with pytest.raises(InputError):
        retrieve(tmp_path, spec_of(server, min_yield=1.0))
    rows, _, _ = retrieve(tmp_path, spec_of(server, sampling_rate_hz=4000))
    assert rows["wave"]["sampling_rate"] == 4000


def test_a_robot_check_ends_the_shards_requests(tmp_path, server):
    write_clips(tmp_path / "clips.parquet", ["wave", "busy", "near", "gone"])
    _, states, _ = retrieve(tmp_path, spec_of(server))
    assert states == {"wave": "ok", "busy": "bot", "near": "bot", "gone": "bot"}
    assert (server.asked["busy"], server.asked["near"], server.asked["gone"]) == (1, 0, 0)


def test_a_container_that_needs_ffmpeg_says_so(tmp_path, server, monkeypatch):
    monkeypatch.setattr(clipaudio.shutil, "which", lambda _: None)
    write_clips(tmp_path / "clips.parquet", ["mp4"])
    with pytest.raises(InputError, match="Install ffmpeg"):
        retrieve(tmp_path, spec_of(server))


def test_requests_keep_their_distance(tmp_path, server):
    write_clips(tmp_path / "clips.parquet", ["gone", "deleted", "forbidden"])
    started = time.monotonic()
    retrieve(tmp_path, spec_of(server, requests_per_minute=60))
    assert server.times[1] - started >= 1
    assert server.times[2] - started >= 2


def test_back_off_doubles_and_its_jitter_belongs_to_the_clip(server, monkeypatch):
    waits = {}
    for ytid in ("down", "down", "once"):
        pace = clipaudio.Pace(0.001)
        said = waits.setdefault(ytid, [])
        monkeypatch.setattr(pace, "wait", said.append)
        clipaudio.retrieve_clip(ytid, 0, spec_of(server, retries=3), pace)
    first, second = waits["down"][:4], waits["down"][4:]
    assert first == second
    assert first[0] == 0
    assert all(0.5 <= wait / (0.001 * 2**k) < 1.5 for k, wait in enumerate(first) if k)
    assert waits["once"][1] != first[1]


@pytest.mark.parametrize(
    ("text", "status", "transient"),
    [
        ("Private video. Sign in if you've been granted access to this video", "private", False),
        ("Video unavailable. This video has been removed by the uploader", "removed", False),
        ("Video unavailable", "removed", False),
        ("It is gone because the account behind it has been terminated", "removed", False),
        ("Video unavailable. The uploader has blocked it in your country", "geo", False),
        ("Sign in to confirm your age. It may be inappropriate for some users.", "age", False),
        ("Sign in to confirm you\u2019re not a bot. Use --cookies", "bot", True),
        ("Video unavailable. This content isn't available, try again later.", "bot", True),
        ("The read operation timed out", "timeout", True),
        ("HTTP Error 502: Bad Gateway", "error", True),
        ("Requested format is not available", "error", False),
        ("Unsupported URL: https://private.example/removed.flac", "error", False),
    ],
)
def test_error_texts(text, status, transient):
    error = DownloadError(f"\x1b[0;31mERROR:\x1b[0m [youtube] private-404: {text}")
    lost = clipaudio.classify(error)
    assert (lost.status, lost.transient) == (status, transient)
    assert "\x1b" not in lost.reason
