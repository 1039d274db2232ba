"""Runs of the workflow on the tests' cluster, and what must be equal after them."""

import signal
import subprocess
import time
from pathlib import Path

from conftest import Checkout

SLURM = ("--profile", "slurm", "--workflow-profile", "slurm-mini")
# Of a run's results, what tells of the run itself: messages, times and memory of its jobs.
OF_THE_RUN = ("logs", "benchmarks")


def on(cluster, run: Checkout, **variables: str) -> Checkout:
    """Return the same checkout with the cluster's environment."""
    results = str(run.results.relative_to(run.directory))
    return Checkout(run.directory, results, **cluster.environment(), **variables)


def start(run: Checkout, *arguments) -> subprocess.Popen:
    """Start Snakemake on the cluster in a process group of its own; it can be interrupted."""
    log = (run.directory / "snakemake.log").open("w")
    return subprocess.Popen(
        run.command(*SLURM, *arguments),
        cwd=run.directory,
        env=run.environment(),
        stdout=log,
        stderr=subprocess.STDOUT,
        start_new_session=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
    )


def said(run: Checkout) -> str:
    """Return what the started Snakemake printed."""
    return (run.directory / "snakemake.log").read_text()


def finish(run: Checkout, process: subprocess.Popen, seconds: float = 900) -> int:
    """Wait for Snakemake and return its exit status."""
    try:
        return process.wait(seconds)
    except subprocess.TimeoutExpired:
        process.kill()
        raise AssertionError(f"still running:\n{said(run)[-4000:]}") from None


def contents(results: Path) -> dict[str, bytes]:
    """Return {file: its bytes} of all results but what tells of the run."""
    return {
        str(path.relative_to(results)): path.read_bytes()
        for path in sorted(results.rglob("*"))
        if path.is_file() and path.relative_to(results).parts[0] not in OF_THE_RUN
    }


def differing(a: dict[str, bytes], b: dict[str, bytes]) -> list[str]:
    """Return the files that are in one only, or differ."""
    return sorted(name for name in a.keys() | b.keys() if a.get(name) != b.get(name))


def wait_for_batches(directory: Path, n: int, process: subprocess.Popen, seconds: float = 300):
    """Wait until a sidecar holds n finished batches."""
    deadline = time.monotonic() + seconds
    while len(list(directory.glob("*.parquet"))) < n:
        assert process.poll() is None, "Snakemake ended"
        assert time.monotonic() < deadline, f"no {n} batches in {directory}"
        time.sleep(0.05)
