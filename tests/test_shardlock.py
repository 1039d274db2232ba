"""One writer at a time: live, dead, silent and suspended holders of a shard's lock."""

import json
import multiprocessing
import os
import signal
import subprocess
import sys
import time

import pyarrow as pa
import pytest
from conftest import ROOT

from conceptcaps import shardlock
from conceptcaps.errors import InputError
from conceptcaps.io import Sidecar
from conceptcaps.shardlock import ShardLock

SCHEMA = pa.schema([("n", pa.int32())])
HOLDER = """
import sys, time
from conceptcaps.shardlock import ShardLock
lock = ShardLock(sys.argv[1])
lock.acquire()
print("held", flush=True)
time.sleep(float(sys.argv[2]))
"""


@pytest.fixture
def output(tmp_path, monkeypatch):
    monkeypatch.setattr(shardlock, "POLL_S", 0.05)
    return tmp_path / "shard.parquet"


def hold(output, seconds):
    """Start another process that holds the lock."""
    process = subprocess.Popen(
        [sys.executable, "-c", HOLDER, str(output), str(seconds)],
        env=os.environ | {"PYTHONPATH": str(ROOT / "workflow/scripts"), "SLURM_JOB_ID": "17"},
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdout.readline() == "held\n"
    return process


def holder(output) -> dict:
    return json.loads(output.with_name("shard.parquet.lock").read_text())


def test_a_waiter_gets_the_lock_when_the_holder_ends(output, capsys):
    process = hold(output, 1)
    lock = ShardLock(output)
    started = time.monotonic()
    lock.acquire()
    assert time.monotonic() - started > 0.5
    assert f"waiting for process {process.pid} on " in capsys.readouterr().out
    process.wait()
    lock.check()
    lock.release()
    assert list(output.parent.iterdir()) == []


def test_a_killed_holder_of_this_machine_is_replaced_at_once(output, capsys):
    process = hold(output, 60)
    process.send_signal(signal.SIGKILL)
    process.wait()
    ShardLock(output).acquire()
    said = capsys.readouterr().out
    assert f"taken over, process {process.pid}" in said and "job 17 is gone" in said
    assert holder(output)["pid"] == os.getpid()


def test_a_holder_elsewhere_is_judged_by_its_beats_not_by_its_clock(output, monkeypatch):
    """The requeued job starts on another node: nothing but the file tells whether the old lives."""
    monkeypatch.setattr(shardlock, "STALE_S", 1.0)
    lock = output.with_name("shard.parquet.lock")
    elsewhere = {"token": "t", "host": "gpu7", "machine": "other", "pid": 1, "started": 5}
    lock.write_text(json.dumps(elsewhere | {"job": "17"}))
    stop = multiprocessing.Event()

    def beat():
        skewed = time.time() + 7200  # a node whose clock is two hours ahead
        for i in range(40):
            if stop.is_set():
                return
            os.utime(lock, (skewed + i, skewed + i))
            time.sleep(0.1)

    process = multiprocessing.get_context("fork").Process(target=beat)
    process.start()
    started = time.monotonic()
    ShardLock(output).acquire()
    waited = time.monotonic() - started
    process.join()
    assert 4 < waited < 30  # four seconds of beats, then one of silence
    assert holder(output)["pid"] == os.getpid()


def test_beats_keep_a_lock_alive(output, monkeypatch):
    monkeypatch.setattr(shardlock, "BEAT_S", 0.05)
    lock = ShardLock(output)
    lock.acquire()
    times = set()
    for _ in range(10):
        times.add(output.with_name("shard.parquet.lock").stat().st_mtime_ns)
        time.sleep(0.1)
    lock.release()
    assert len(times) > 3


@pytest.mark.parametrize("content", [b"", b"\0" * 64, b"\xff{", b"[1]"])
def test_a_lock_that_says_nothing_is_taken_over_after_its_time(output, monkeypatch, content):
    """Its holder was killed between making and writing it, or its machine crashed."""
    monkeypatch.setattr(shardlock, "STALE_S", 0.3)
    output.with_name("shard.parquet.lock").write_bytes(content)
    lock = ShardLock(output)
    lock.acquire()
    lock.check()
    lock.release()
    assert list(output.parent.iterdir()) == []


def test_a_lock_that_cannot_be_looked_at_is_waited_for_or_named(output, monkeypatch):
    path = output.with_name("shard.parquet.lock")
    path.write_bytes(b"")
    slept, real = [], type(path).open

    def refuse(error):
        def opened(self, *arguments, **options):
            if self == path:
                raise error
            return real(self, *arguments, **options)

        monkeypatch.setattr(type(path), "open", opened)

    def sleep(seconds):
        slept.append(seconds)
        if len(slept) == 3:
            path.unlink()

    monkeypatch.setattr(shardlock.time, "sleep", sleep)
    refuse(OSError(5, "Input/output error"))
    ShardLock(output).acquire()
    assert slept == [shardlock.POLL_S] * 3
    refuse(PermissionError(13, "Permission denied"))
    with pytest.raises(
        InputError, match=r"shard\.parquet\.lock: cannot be read .*another user's job"
    ):
        ShardLock(output).acquire()


def test_a_suspended_holder_finds_that_it_lost_the_shard(output):
    sidecar = Sidecar(output, key="k", code=__file__, schema=SCHEMA)
    sidecar.write(0, [{"n": 1}])
    lock = output.with_name("shard.parquet.lock")
    lock.write_text(json.dumps(holder(output) | {"token": "another", "host": "gpu2"}))
    with pytest.raises(InputError, match=r"lost its lock \(process \d+ on gpu2"):
        sidecar.write(1, [{"n": 2}])
    with pytest.raises(InputError, match="lost its lock"):
        sidecar.rows()
    assert not (output.parent / "shard.parquet.partial/00001.parquet").exists()
    sidecar.lock.release()
    assert lock.exists()  # it is not ours to remove


def test_only_one_of_many_waiters_writes_at_a_time(output):
    log = output.parent / "log"

    def write(i):
        lock = ShardLock(output)
        lock.acquire()
        with log.open("a") as file:
            file.write(f"in {i}\n")
            file.flush()
            time.sleep(0.05)
            file.write(f"out {i}\n")
        lock.release()

    hold(output, 60).kill()  # all of them find a stale lock
    fork = multiprocessing.get_context("fork")
    processes = [fork.Process(target=write, args=(i,)) for i in range(8)]
    for process in processes:
        process.start()
    for process in processes:
        process.join(60)
        assert process.exitcode == 0
    lines = log.read_text().split("\n")[:-1]
    assert len(lines) == 16
    assert all(a.replace("in", "out") == b for a, b in zip(lines[::2], lines[1::2], strict=True))


def test_a_waiter_inherits_the_finished_batches(output):
    """The orphan of a killed run finishes while its successor waits: nothing is made twice."""
    sidecar = Sidecar(output, key="k", code=__file__, schema=SCHEMA)
    sidecar.write(0, [{"n": 1}])

    def succeed():
        again = Sidecar(output, key="k", code=__file__, schema=SCHEMA)
        again.close() if 0 in again else os._exit(1)

    process = multiprocessing.get_context("fork").Process(target=succeed)
    # A fork has our pid's identity only after its own _process(), so it waits like any other.
    process.start()
    deadline = time.monotonic() + 20
    while not output.with_name("shard.parquet.lock.waiting").exists():
        assert time.monotonic() < deadline
        time.sleep(0.02)
    sidecar.close()
    process.join(60)
    assert process.exitcode == 0
    assert list(output.parent.iterdir()) == []
