"""One writer at a time for a shard, also across the nodes of a cluster.

The lock is the file `<output>.lock`, made with O_EXCL (atomic on local file systems and on NFS); it
names its holder. A thread of the holder renews its modification time every `BEAT_S` seconds. Who
finds it there waits, and takes it over when it is stale: at once if the holder was a process of
this machine that is gone, else when the file has not changed for `STALE_S` seconds of the waiter's
own clock. No times of two machines are compared, so their clocks may differ.

A holder that stood still for longer (a suspended job, a frozen node) and lost its lock finds out
before it writes again (`check`). What two writers could still do between that check and a rename is
write the same bytes: files are replaced whole, and items have their own random streams.

flock would be shorter. It is not used since on some cluster file systems it is local to a node, or
does nothing, without saying so.
"""

import atexit
import json
import os
import platform
import threading
import time
import uuid
from contextlib import suppress
from pathlib import Path

from conceptcaps.errors import InputError

BEAT_S = 10.0  # seconds between signs of life
STALE_S = 90.0  # seconds without one before a lock is taken over; NFS may delay some
POLL_S = 1.0  # seconds between two looks of a waiter


class ShardLock:
    """The lock of one shard; held from `acquire` until `release` or the end of the process."""

    def __init__(self, output: str | Path):
        """Name the lock of `output`; nothing is written yet."""
        self.path = Path(f"{output}.lock")
        self._waiting = Path(f"{output}.lock.waiting")
        self._me = {"token": uuid.uuid4().hex, "host": platform.node(), **_process()}
        self._me["job"] = os.environ.get("SLURM_JOB_ID")
        self._file = None
        self._stop = threading.Event()

    def acquire(self) -> None:
        """Wait until no living process holds the lock, then hold it. Says whom it waits for.

        Raises:
            InputError: the lock may not be read.
        """
        self.path.parent.mkdir(parents=True, exist_ok=True)
        seen, since, said = None, 0.0, False
        while not self._create():
            found = self._look()
            if found is None:  # released in between, or the file system stutters
                time.sleep(POLL_S)
                continue
            if found != seen:
                seen, since = found, time.monotonic()
            if _is_gone(found[0]) or time.monotonic() - since > STALE_S:
                print(f"{self.path}: taken over, {_describe(found[0])} is gone", flush=True)
                self._break(found)
                continue
            if not said:
                print(f"{self.path}: waiting for {_describe(found[0])}", flush=True)
                said = True
            self._waiting.touch()
            time.sleep(POLL_S)
        self._waiting.unlink(missing_ok=True)
        threading.Thread(target=self._beat, daemon=True).start()
        atexit.register(self.release)

    def awaited(self) -> bool:
        """Tell whether another process waits for this lock now."""
        if not self._waiting.exists():
            return False
        self._waiting.unlink(missing_ok=True)
        time.sleep(2 * POLL_S)  # one that lives makes its mark again
        return self._waiting.exists()

    def check(self) -> None:
        """Raise unless the lock is still ours.

        Raises:
            InputError: this process stood still for so long that another took the lock over.
        """
        found = self._look()
        if found is None or found[0] != self._me:
            who = _describe(found[0]) if found else "nobody"
            raise InputError(
                f"{self.path}: this job stood still for more than {STALE_S:.0f} s and lost its "
                f"lock ({who} holds it now). Its finished batches are kept; nothing is to be done."
            )

    def release(self) -> None:
        """Give the lock up, if it is still ours."""
        atexit.unregister(self.release)
        self._stop.set()
        found = self._look()
        if found is not None and found[0] == self._me:
            self.path.unlink(missing_ok=True)
        if self._file is not None:
            os.close(self._file)
            self._file = None

    def _create(self) -> bool:
        try:
            self._file = os.open(self.path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o644)
        except FileExistsError:
            return False
        os.write(self._file, json.dumps(self._me).encode())
        os.fsync(self._file)
        return True

    def _look(self) -> tuple[dict, int] | None:
        """Return (holder, modification time); the holder is {} while or after it fails to write."""
        try:
            with self.path.open("rb") as file:  # opening makes NFS ask the server
                changed = os.fstat(file.fileno()).st_mtime_ns
                text = file.read()
        except PermissionError as error:
            raise InputError(
                f"{self.path}: cannot be read ({error}). It is the lock of another user's job: "
                "have the results made readable to you, or name another pathvars.results."
            ) from error
        except OSError:
            return None
        return _holder(text), changed

    def _break(self, stale: tuple[dict, int]) -> None:
        """Remove the lock that was judged; one that another waiter made meanwhile is kept."""
        aside = self.path.with_name(f"{self.path.name}.{self._me['token']}")
        with suppress(FileNotFoundError):
            self.path.rename(aside)
            if _holder(aside.read_bytes()) != stale[0]:
                with suppress(FileExistsError):
                    os.link(aside, self.path)
            aside.unlink()

    def _beat(self) -> None:
        file = self._file
        while not self._stop.wait(BEAT_S):
            try:
                os.utime(file)
            except (OSError, TypeError):  # closed, or the file was taken away: check() tells
                return


def _holder(text: bytes) -> dict:
    """Return what a lock says of its holder; {} if it is not, or only half, written."""
    try:
        found = json.loads(text)
    except ValueError:  # UnicodeDecodeError too: a crashed machine leaves zeros
        return {}
    return found if isinstance(found, dict) else {}


def _process(pid: int | None = None) -> dict:
    """Return what identifies a process: boot of its kernel, pid namespace, pid, start time."""
    pid = pid or os.getpid()
    state, *fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return {
        "machine": Path("/proc/sys/kernel/random/boot_id").read_text().strip()
        + str(Path("/proc/self/ns/pid").readlink()),
        "pid": pid,
        "started": None if state in "ZX" else int(fields[18]),  # ticks since boot; a zombie is gone
    }


def _is_gone(holder: dict) -> bool:
    """Tell whether a holder was a process of this machine and is dead, or was this very process."""
    me = _process()
    if holder.get("machine") != me["machine"]:
        return False
    if holder["pid"] == me["pid"]:
        return True
    try:
        return _process(holder["pid"])["started"] != holder["started"]
    except OSError:
        return True


def _describe(holder: dict) -> str:
    if not holder:
        return "an unknown holder"
    job = f", job {holder['job']}" if holder.get("job") else ""
    return f"process {holder['pid']} on {holder['host']}{job}"
