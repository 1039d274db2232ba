"""Full, read-only and damaged storage: a message names it; afterwards the bytes are the same."""

import os
import shutil
import subprocess
from contextlib import contextmanager
from pathlib import Path

import pytest
from runs import contents, differing

pytestmark = pytest.mark.slurm
OVERLAYS = ["overlays/mini.yaml", "tests/slurm/overlay.yaml"]
LOCAL = ("--workflow-profile", "mini", "--configfile", *OVERLAYS, "--")
TARGET = "results/slurm_mini/audio/conceptcaps/00000.parquet"


@pytest.fixture
def run(small, tmp_path):
    copy = small.copy(tmp_path / "run")
    (copy.directory / TARGET).unlink()
    yield copy
    shutil.rmtree(copy.directory)


@contextmanager
def mounted(*arguments):
    """Mount something for the time of a test; the last argument is where."""
    if os.geteuid() != 0:
        pytest.skip("needs root, to mount a file system of its own")
    done = subprocess.run(["mount", *map(str, arguments)], capture_output=True, text=True)
    if done.returncode:
        pytest.skip(f"cannot mount here: {done.stderr.strip()}")
    try:
        yield
    finally:
        subprocess.run(["umount", arguments[-1]], check=True)


def mount(*arguments):
    subprocess.run(["mount", *map(str, arguments)], check=True)


def test_a_full_disk(run, small):
    place = (run.directory / TARGET).parent
    kept = place.with_name("kept")
    place.rename(kept)
    place.mkdir()
    with mounted("-t", "tmpfs", "-o", "size=600k", "tmpfs", place):
        failed = run.snakemake(*LOCAL, TARGET, check=False)
        assert failed.returncode != 0
        assert "No space left on device" in failed.stdout
        assert not (run.directory / TARGET).exists()
        assert not [path for path in place.rglob("*.tmp")]
        finished = len(list(place.glob("*.partial/*.parquet")))
        assert 0 < finished < 4
        mount("-o", "remount,size=64m", place)  # somebody makes room
        run.snakemake(*LOCAL, TARGET)
        log = (run.results / "logs/generate_audio/conceptcaps/00000.log").read_text()
        assert f"{4 - finished} of 4 batches to play" in log
        shutil.copytree(place, kept, dirs_exist_ok=True)
    place.rmdir()
    kept.rename(place)
    assert differing(contents(run.results), contents(small.results)) == []


def test_read_only_results(run, small):
    with mounted("--bind", run.results, run.results):
        mount("-o", "remount,bind,ro", run.results)
        failed = run.snakemake(*LOCAL, TARGET, check=False)
        assert failed.returncode != 0
        assert "pathvars.results: results/slurm_mini cannot be written" in failed.stdout
        assert "Traceback" not in failed.stdout
    run.snakemake(*LOCAL, TARGET)
    assert differing(contents(run.results), contents(small.results)) == []


def damage(path: Path) -> None:
    """Flip one bit in the middle of a file, where the tables have their pages; keep its times."""
    times = path.stat().st_atime_ns, path.stat().st_mtime_ns
    content = bytearray(path.read_bytes())
    content[len(content) // 4] ^= 16
    path.write_bytes(content)
    os.utime(path, ns=times)


def test_a_damaged_intermediate_table(run, small):
    name = "results/slurm_mini/captions/conceptcaps/00000.parquet"
    damage(run.directory / name)
    failed = run.snakemake(*LOCAL, TARGET, check=False)
    assert failed.returncode != 0
    assert f"error: {name}: cannot be read as a parquet table" in failed.stdout
    assert "delete it and run again" in failed.stdout
    assert not (run.directory / TARGET).exists()
    (run.directory / name).unlink()
    run.snakemake(*LOCAL, TARGET)
    assert differing(contents(run.results), contents(small.results)) == []


def test_a_damaged_batch_is_made_again(run, small):
    """What a kill or a bad disk left in a sidecar is verified before it is taken over."""
    sidecar = run.directory / f"{TARGET}.partial"
    process = subprocess.Popen(
        run.command(*LOCAL, TARGET),
        cwd=run.directory,
        env=run.environment(),
        stdout=subprocess.DEVNULL,
        start_new_session=True,
    )
    while len(list(sidecar.glob("*.parquet"))) < 2:
        assert process.poll() is None
    os.killpg(process.pid, 9)
    process.wait()
    damage(sidecar / "00000.parquet")
    run.snakemake(*LOCAL[:-1], "--unlock")
    run.snakemake(*LOCAL, TARGET)
    assert differing(contents(run.results), contents(small.results)) == []
