"""Bad input gets a clear message; kills and interrupts lose nothing."""

import os
import re
import shutil
import signal
import subprocess
import time

import numpy as np
import pytest
import soundfile as sf
from conftest import check_out

from conceptcaps.gtzan import GENRES
from conceptcaps.io import read_rows

pytestmark = [pytest.mark.pipeline, pytest.mark.long]
MINI = ("--workflow-profile", "mini")


@pytest.fixture
def copy(mini, tmp_path):
    run = mini.copy(tmp_path / "copy")
    yield run
    shutil.rmtree(run.directory)


@pytest.fixture
def fresh(tmp_path):
    return check_out(tmp_path / "fresh")


def start(run, *arguments):
    # A run that CI starts in the background inherits "ignore SIGINT", and so would its children.
    return subprocess.Popen(
        run.command(*MINI, *arguments),
        cwd=run.directory,
        env=run.environment(),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
    )


def wait_for_batches(directory, n, process, seconds=300):
    """Wait until a sidecar holds n finished batches."""
    deadline = time.monotonic() + seconds
    while len(list(directory.glob("*.parquet"))) < n:
        assert process.poll() is None, process.stdout.read()
        assert time.monotonic() < deadline, f"no {n} batches in {directory}"
        time.sleep(0.02)


@pytest.mark.parametrize("stage", ["captions", "audio"])
def test_sigkill_inside_a_shard_then_resume_gives_the_same_bytes(copy, stage):
    shard = copy.results / stage / "conceptcaps/00000.parquet"
    ledger = copy.results / stage / "conceptcaps/ledger/00000.parquet"
    undisturbed = shard.read_bytes(), ledger.read_bytes()
    shard.unlink()
    target = str(shard.relative_to(copy.directory))
    process = start(copy, target)
    partial = shard.with_name("00000.parquet.partial")
    wait_for_batches(partial, 2, process)
    os.killpg(process.pid, signal.SIGKILL)
    process.communicate()
    assert not shard.exists()
    finished = len(list(partial.glob("*.parquet")))
    copy.snakemake(*MINI, "--unlock")
    copy.snakemake(*MINI, target)
    assert (shard.read_bytes(), ledger.read_bytes()) == undisturbed
    assert not partial.exists()
    if stage == "audio":  # what was finished was not made again
        log = (copy.results / "logs/generate_audio/conceptcaps/00000.log").read_text()
        left, total = map(int, re.search(r"(\d+) of (\d+) batches to play", log).groups())
        assert left == total - finished


def test_interrupt_and_rerun(copy):
    shard = copy.results / "audio/conceptcaps/00001.parquet"
    before = shard.read_bytes()
    shard.unlink()
    process = start(copy, "audio")
    wait_for_batches(shard.with_name("00001.parquet.partial"), 1, process)
    os.killpg(process.pid, signal.SIGINT)
    output, _ = process.communicate(timeout=120)
    assert process.returncode != 0, output
    assert not shard.exists()
    copy.snakemake(*MINI, "audio")
    assert shard.read_bytes() == before


def test_a_second_run_at_once_is_refused(copy):
    shard = copy.results / "audio/conceptcaps/00000.parquet"
    shard.unlink()
    process = start(copy, "audio")
    wait_for_batches(shard.with_name("00000.parquet.partial"), 1, process)
    second = copy.snakemake(*MINI, "audio", check=False)
    assert second.returncode != 0
    assert "cannot be locked" in second.stdout
    output, _ = process.communicate(timeout=300)
    assert process.returncode == 0, output


def test_a_corrupt_wav_is_listed_and_a_folder_of_them_is_refused(copy):
    folder = copy.directory / "genres"
    rng = np.random.default_rng(0)
    for genre in GENRES:
        (folder / genre).mkdir(parents=True)
        for i in range(4):
            wave = 0.1 * rng.standard_normal(22050 * 3)
            sf.write(folder / genre / f"{genre}.0000{i}.wav", wave, 22050)
    (folder / "jazz/jazz.00000.wav").write_bytes(b"RIFF broken")
    source = f"gtzan={{kind: folder, path: {folder}}}"
    target = "results/mini/gtzan/clips.parquet"
    copy.snakemake(*MINI, target, "--config", source)
    ledger = read_rows(copy.results / "gtzan/ledger.parquet")
    lost = [row for row in ledger if row["status"] != "ok"]
    assert [row["id"] for row in lost] == ["jazz.00000"] and "decoded" in lost[0]["reason"]
    for i in range(1, 4):
        (folder / f"rock/rock.0000{i}.wav").write_bytes(b"")
    done = copy.snakemake(*MINI, target, "--config", source, "--forcerun", target, check=False)
    assert done.returncode != 0
    assert "below min_yield 0.95" in done.stdout


def test_an_unwritable_results_directory(fresh):
    taken = "pathvars={results: README.md/results}"  # a file is in the way: stops root as well
    done = fresh.snakemake(*MINI, "tags", "--config", taken, check=False)
    assert done.returncode != 0
    assert (
        "pathvars.results: README.md/results cannot be written, since README.md is not a directory"
        in done.stdout
    )
    assert "Traceback" not in done.stdout


def test_a_broken_table_of_the_user(fresh, tmp_path):
    for text, message in (("", "is empty"), ("ytid,caption\na,b\n", "no column 'start_s'")):
        path = tmp_path / "broken.csv"
        path.write_text(text)
        source = f"sources={{musiccaps: {{kind: file, path: {path}}}}}"
        done = fresh.snakemake(*MINI, "tags", "--config", source, check=False)
        assert done.returncode != 0
        assert f"error: {path}: {message}" in done.stdout or message in done.stdout
        assert "Traceback" not in done.stdout


def test_a_tag_in_two_categories(fresh, tmp_path):
    path = tmp_path / "taxonomy.yaml"
    path.write_text("genre: [jazz]\nmood: [jazz]\ninstrument: [piano]\ntempo: [slow]\n")
    done = fresh.snakemake(*MINI, "tags", "--config", f"distill={{taxonomy: {path}}}", check=False)
    assert done.returncode != 0
    assert "tag 'jazz' is in category 'genre' and in 'mood'" in done.stdout
