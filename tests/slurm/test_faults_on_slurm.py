"""What goes wrong on a cluster, on a real one: afterwards the same bytes, nothing lost or twice."""

import os
import shutil
import signal
import time
from pathlib import Path

import pytest
from conftest import Checkout
from runs import (
    SLURM,
    contents,
    differing,
    finish,
    on,
    said,
    start,
    wait_for_batches,
)

from conceptcaps.io import read_rows

pytestmark = pytest.mark.slurm
FAULTS = Path(__file__).parent / "faults"
RULE = "generate_audio"


@pytest.fixture
def run(small, cluster, tmp_path):
    """A finished run whose clips of arm conceptcaps are gone."""
    cluster.set_prolog("")
    copy = on(cluster, small.copy(tmp_path / "run"))
    for shard in shards(copy):
        shard.unlink()
    yield copy
    shutil.rmtree(copy.directory)


def shards(run: Checkout) -> list[Path]:
    return [run.results / f"audio/conceptcaps/{i:05d}.parquet" for i in range(3)]


def targets(run: Checkout) -> list[str]:
    return [str(shard.relative_to(run.directory)) for shard in shards(run)]


def partial(shard: Path) -> Path:
    return shard.with_name(f"{shard.name}.partial")


def our_jobs(cluster, run: Checkout) -> list[dict]:
    return [job for job in cluster.jobs() if job["WorkDir"] == str(run.directory)]


def states_of(cluster, run: Checkout) -> set[str]:
    return {job["JobState"] for job in our_jobs(cluster, run)}


def job_of(cluster, run: Checkout, shard: Path) -> dict:
    """Return the record of the running job of a shard."""

    def found():
        jobs = [j for j in our_jobs(cluster, run) if j["JobState"] == "RUNNING"]
        return next((j for j in jobs if shard.stem in j["Wildcards"]), None)

    return cluster.wait(found, 60, f"a running job of shard {shard.stem}")


def assert_undisturbed(run: Checkout, small: Checkout) -> None:
    """The same files with the same bytes, no id lost, none twice, no sidecar or lock left."""
    assert differing(contents(run.results), contents(small.results)) == []
    played = [row["id"] for shard in shards(run) for row in read_rows(shard, ["id"])]
    tags = [row["id"] for row in read_rows(small.results / "tags/tags.parquet", ["id"])]
    ledgers = (run.results / "audio/conceptcaps/ledger").glob("*.parquet")
    accounted = [row["id"] for ledger in sorted(ledgers) for row in read_rows(ledger)]
    assert len(set(played)) == len(played) and set(played) <= set(tags)
    assert len(set(accounted)) == len(accounted)


@pytest.fixture(scope="module")
def disturbed(small, cluster, tmp_path_factory):
    """A run in which one shard exits, one exceeds its memory, one its time; one is cancelled."""
    cluster.set_prolog("")
    directory = tmp_path_factory.mktemp("disturbed")
    faults = directory / "faults"
    faults.mkdir()
    for fault in ("exit", "memory", "time"):
        (faults / fault).touch()
    variables = {"PYTHONPATH": str(FAULTS), "CONCEPTCAPS_FAULTS": str(faults)}
    run = on(cluster, small.copy(directory / "run"), **variables)
    for shard in (*shards(run), run.results / "audio/base/00000.parquet"):
        shard.unlink()
    grown = ["--set-resources", f"{RULE}:runtime=2 if attempt == 1 else 15 * attempt"]
    grown.append(f"{RULE}:mem_mb=2000 * attempt")
    base = "results/slurm_mini/audio/base/00000.parquet"
    process = start(run, *targets(run), base, *grown, "--retries", 3)
    taken = cluster.wait(
        lambda: len(list(faults.glob("taken.*"))) == 3 and list(faults.glob("taken.*")),
        240,
        "three faults taken",
    )
    broken = {path.name.split(".")[1]: path.name.split(".")[2] for path in taken}

    def cancellable():  # a job without a fault that has finished a batch
        for job in our_jobs(cluster, run):
            if job["JobState"] == "RUNNING" and job["JobId"] not in broken.values():
                arm, _, shard = job["Wildcards"].partition("_")
                if list(partial(run.results / f"audio/{arm}/{shard}.parquet").glob("*.parquet")):
                    return job
        return None

    victim = cluster.wait(cancellable, 240, "a shard under way")
    cluster.ask("scancel", victim["JobId"])
    status = finish(run, process)
    jobs = {job["JobId"]: job for job in our_jobs(cluster, run)}
    return run, status, jobs, broken | {"cancel": victim["JobId"]}


@pytest.mark.parametrize(
    ("fault", "state"),
    [("exit", "FAILED"), ("cancel", "CANCELLED"), ("time", "TIMEOUT"), ("memory", "FAILED")],
)
def test_a_failed_job_is_tried_again_with_more(disturbed, small, fault, state):
    run, status, jobs, broken = disturbed
    assert status == 0, said(run)[-4000:]
    first = jobs[broken[fault]]
    assert first["JobState"].startswith(state)
    again = [
        job
        for job in jobs.values()
        if job["Wildcards"] == first["Wildcards"] and int(job["JobId"]) > int(first["JobId"])
    ]
    assert [job["JobState"] for job in again] == ["COMPLETED"]
    assert again[0]["TimeLimit"] > first["TimeLimit"] == "00:02:00"
    assert first["MinMemoryNode"] == "2000M" and again[0]["MinMemoryNode"] in ("4000M", "4G")
    assert_undisturbed(run, small)


def test_a_killed_node_loses_only_the_batch_in_hand(run, small, cluster):
    process = start(run, *targets(run))
    jobs = cluster.wait(
        lambda: {j["Wildcards"]: j for j in our_jobs(cluster, run) if j["NodeList"] == "gpu1"},
        120,
        "a shard on gpu1",
    )
    wildcards, job = next(iter(jobs.items()))
    shard = run.results / f"audio/conceptcaps/{wildcards.split('_')[-1]}.parquet"
    wait_for_batches(partial(shard), 1, process)
    cluster.crash("gpu1")
    kept = {p.name: p.stat().st_mtime_ns for p in partial(shard).glob("*.parquet")}
    try:
        assert not shard.exists()
        again = cluster.wait(
            lambda: next(
                (
                    j
                    for j in our_jobs(cluster, run)
                    if j["JobId"] == job["JobId"] and j["Restarts"] == "1"
                ),
                None,
            ),
            120,
            "the job is requeued",
        )
        assert again["Wildcards"] == wildcards
    finally:
        cluster.start_node("gpu1")
    assert finish(run, process) == 0, said(run)[-4000:]
    log = (run.results / f"logs/{RULE}/conceptcaps/{shard.stem}.log").read_text()
    assert f"{4 - len(kept)} of 4 batches to play" in log
    assert "Trying to restart" not in said(run)  # Slurm started it again; no retry was spent
    cluster.wait_idle()
    assert_undisturbed(run, small)


def test_slurmctld_restarts_while_jobs_run(run, small, cluster):
    process = start(run, *targets(run))
    wait_for_batches(partial(shards(run)[0]), 1, process)
    cluster.stop_controller()
    cluster.start_controller()
    assert finish(run, process) == 0, said(run)[-4000:]
    jobs = our_jobs(cluster, run)
    assert [job["JobState"] for job in jobs] == ["COMPLETED"] * 3
    assert_undisturbed(run, small)


@pytest.mark.parametrize("how", [signal.SIGTERM, signal.SIGINT])
def test_snakemake_is_told_to_stop(run, small, cluster, how):
    process = start(run, *targets(run))
    wait_for_batches(partial(shards(run)[0]), 1, process)
    os.killpg(process.pid, how)
    assert finish(run, process, 300) != 0
    under_way = {"PENDING", "RUNNING", "COMPLETING"}  # the last for some seconds after scancel
    cluster.wait(lambda: under_way.isdisjoint(states_of(cluster, run)), 60, "the jobs end")
    states = states_of(cluster, run)
    # SIGTERM waits for what runs; SIGINT cancels it, and what it had finished is in the sidecars.
    assert states <= ({"COMPLETED"} if how == signal.SIGTERM else {"CANCELLED", "COMPLETED"})
    run.snakemake(*SLURM, "--unlock")  # interrupted while it cancels, it may leave its lock
    run.snakemake(*SLURM, *targets(run))
    assert_undisturbed(run, small)


def test_snakemake_is_killed_and_run_again_while_its_jobs_still_run(run, small, cluster):
    target = targets(run)[0]
    shard = shards(run)[0]
    process = start(run, target)
    wait_for_batches(partial(shard), 1, process)
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    orphan = job_of(cluster, run, shard)
    cluster.ask("scontrol", "suspend", orphan["JobId"], check=False)
    run.snakemake(*SLURM, "--unlock")
    again = start(run, target)
    successor = cluster.wait(
        lambda: next(
            (
                j
                for j in our_jobs(cluster, run)
                if j["JobId"] != orphan["JobId"] and j["JobState"] == "RUNNING"
            ),
            None,
        ),
        120,
        "the successor runs",
    )
    waiting = shard.with_name(f"{shard.name}.lock.waiting")
    cluster.wait(waiting.exists, 120, "the successor waits for the orphan")
    log = run.results / f"logs/{RULE}/conceptcaps/{shard.stem}.log"
    assert f"job {orphan['JobId']}" in log.read_text()
    batches = {p.name: p.stat().st_ino for p in partial(shard).glob("*.parquet")}
    cluster.ask("scontrol", "resume", orphan["JobId"], check=False)
    assert finish(run, again) == 0, said(run)[-4000:]
    ended = {job["JobId"]: job["JobState"] for job in our_jobs(cluster, run)}
    assert ended[orphan["JobId"]] == ended[successor["JobId"]] == "COMPLETED"
    assert len(batches) < 4 and "0 of 4 batches to play" in log.read_text()  # inherited, not made
    others = shards(run)[1:]
    assert not any(other.exists() for other in others)
    run.snakemake(*SLURM, *targets(run))
    assert_undisturbed(run, small)


def test_a_node_whose_clock_is_an_hour_ahead(run, small, cluster, tmp_path):
    library = next(Path("/usr/lib").rglob("libfaketime.so.1"), None)
    if library is None:
        pytest.skip("no libfaketime here (Debian package faketime)")
    variables = {"LD_PRELOAD": library, "FAKETIME": "+3600s", "DONT_FAKE_MONOTONIC": 1}
    variables |= {"PYTHONPATH": FAULTS, "CONCEPTCAPS_SKEWED": tmp_path / "clock"}
    lines = "\n".join(f"  echo export {name}={value}" for name, value in variables.items())
    on_gpu1 = '[ "$SLURMD_NODENAME" = gpu1 ] && [ -n "$SLURM_STEP_ID" ]'
    cluster.set_prolog(f"if {on_gpu1}; then\n{lines}\nfi")
    try:
        process = start(run, *targets(run))
        assert finish(run, process) == 0, said(run)[-4000:]
        nodes = {job["NodeList"] for job in our_jobs(cluster, run)}
        assert "gpu1" in nodes
        assert float((tmp_path / "clock").read_text()) > time.time() + 1800  # that node's hour
        # Snakemake dates what a job leaves anew, with its own clock: nothing comes from the future.
        assert all(shard.stat().st_mtime <= time.time() for shard in shards(run))
    finally:
        cluster.set_prolog("")
    # What was made from those clips is older than they are; it is made again at most once.
    scores = [f"results/slurm_mini/scores/conceptcaps/clap/{i:05d}.parquet" for i in range(3)]
    run.snakemake(*SLURM, *scores)
    assert "Nothing to be done" in run.snakemake(*SLURM, "-n", *scores).stdout
    assert_undisturbed(run, small)
