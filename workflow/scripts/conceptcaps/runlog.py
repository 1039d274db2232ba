"""One log file per job: everything a job says, native libraries included, and its progress."""

import os
import signal
import sys
import time
import traceback
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

from threadpoolctl import threadpool_limits
from tqdm import tqdm

from conceptcaps import allocator
from conceptcaps.errors import InputError

_PLAIN_EVERY_S = 10.0  # seconds between progress lines in a log
_terminals: list[int] = []  # file descriptor of the user's terminal while output is captured


@contextmanager
def capture(log: str | Path, *, threads: int) -> Iterator[None]:
    """Send file descriptors 1 and 2 to `log` and limit numeric libraries to `threads`.

    An InputError ends the process with its message alone, on the terminal and in the log; any other
    error leaves its traceback in the log and its last line and the log's name on the terminal.
    """
    Path(log).parent.mkdir(parents=True, exist_ok=True)
    sys.stdout.flush()
    sys.stderr.flush()
    terminal = os.dup(2)
    Path(log).write_text("")
    with Path(log).open("a") as file:  # a job that outlived its run may still write to it, too
        os.dup2(file.fileno(), 1)
        os.dup2(file.fileno(), 2)
    _terminals.append(terminal)
    started = time.monotonic()
    before = signal.signal(signal.SIGTERM, _end)
    try:
        _limit_threads(threads)
        allocator.keep_freed()
        yield
        print(f"finished in {time.monotonic() - started:.1f} s")
    except InputError as error:
        _fail(terminal, f"error: {error}")
    except Exception as error:  # the job's boundary: nothing is swallowed, the job fails
        traceback.print_exc()
        _fail(terminal, f"error: {type(error).__name__}: {error}\n(traceback in {log})")
    finally:
        signal.signal(signal.SIGTERM, before)
        _terminals.remove(terminal)


def _end(number: int, _frame) -> None:
    """Let a job that a scheduler ends remove its temporary files and its lock; twice is at once."""
    signal.signal(number, signal.SIG_DFL)
    raise SystemExit(128 + number)


def tell(text: str) -> None:
    """Print a line, into the log, and while output is captured on the user's terminal as well."""
    print(text, flush=True)
    if _terminals:
        os.write(_terminals[-1], f"{text}\n".encode())


def _limit_threads(threads: int) -> None:
    threadpool_limits(threads)
    if "torch" in sys.modules:  # imported by the job's module; a job without it is not slowed
        sys.modules["torch"].set_num_threads(threads)


def _fail(terminal: int, message: str) -> None:
    print(message, file=sys.stderr)
    sys.stderr.flush()
    os.write(terminal, f"{message}\n".encode())
    raise SystemExit(1)


def progress(items: Iterable, *, what: str, total: int | None = None) -> Iterator:
    """Iterate with a bar on the user's terminal, or a plain line every ten seconds in a log."""
    if total is None and hasattr(items, "__len__"):
        total = len(items)
    terminal = _terminals[-1] if _terminals else 2
    if os.isatty(terminal):
        with os.fdopen(os.dup(terminal), "w") as stream:
            yield from tqdm(items, desc=what, total=total, file=stream, leave=False)
        return
    started = said = time.monotonic()
    done = 0
    for done, item in enumerate(items, 1):
        yield item
        now = time.monotonic()
        if now - said > _PLAIN_EVERY_S:
            said = now
            rate = done / (now - started)
            print(f"{what}: {done} of {total or '?'} ({rate:.2f}/s)", flush=True)
    print(f"{what}: {done} in {time.monotonic() - started:.1f} s", flush=True)
