"""Write docs/scaling.md and its figure: what the workflow costs at 21,433 to 2,000,000 clips.

    python docs/scaling.py            everything (the dry runs take a minute or two)
    python docs/scaling.py --no-dry-runs   keep the dry runs' figures of the page, renew the rest

Graph: measured by dry runs. Storage and makespan: computed from the assumptions below.
"""

import heapq
import math
import os
import re
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import yaml

ROOT = Path(__file__).resolve().parent.parent
CONFIG = yaml.safe_load((ROOT / "config.yaml").read_text())
RUNS_AT = ((21_433, 512), (200_000, 512), (2_000_000, 512), (2_000_000, 4096))  # clips, a shard
SHARDS = (128, 512, 2048)
GPUS = (1, 2, 4, 8, 16, 32, 64)

# Assumptions, each with its source.
GPU_HOURS, PAPER_CLIPS = 100, 21_433  # arXiv 2601.14157: "about 100 GPU-hours", all stages
ROOFLINE = 17_000  # clips a GPU-hour: weights and KV cache read at an H200's bandwidth
START_S = 90  # of a job: queue, Python, weights from the page cache. An assumption, not measured
SPREAD = 0.10  # sd of the log of a shard's time
STRAGGLERS = 0.02, 3.0  # share of the jobs, and how many times as long they take
FAILURES = 0.02  # share of the jobs that are killed at a random time; they go on from their sidecar
BATCH_S = 16 * GPU_HOURS * 3600 / PAPER_CLIPS  # work that a kill loses: half of a batch of 16 clips
RUNS = 200  # of the simulation
FLAC_SHARE = 1.0  # of PCM: the upper bound; real music is about 0.6


def dry_run(clips: int, shard: int) -> tuple[float, float, float]:
    """Return wall seconds, processor seconds and peak MB of a dry run of the whole dataset."""
    command = [
        Path(sys.executable).parent / "snakemake", "-n", "-q", "all", "--config",
        f"tags={{items: {clips}}}", f"shards={{items: {shard}}}",
        "--", "results/conceptcaps.parquet",
    ]  # fmt: skip
    environment = os.environ | {"XDG_CACHE_HOME": str(ROOT / ".snakemake/cache")}
    started = time.monotonic()
    process = subprocess.Popen(
        command, cwd=ROOT, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    _, status, usage = os.wait4(process.pid, 0)
    if status:
        raise SystemExit(f"{command} failed")
    # Processor time beside wall time: the first does not depend on what else runs.
    return time.monotonic() - started, usage.ru_utime + usage.ru_stime, usage.ru_maxrss / 1024


def jobs(clips: int, shard: int) -> int:
    """Return the number of sharded jobs: captions, audio and CLAP of every arm."""
    compared = min(clips, CONFIG["arms"]["compared_items"])
    arms = [clips, *(compared for _ in CONFIG["arms"]["compared"])]
    return 3 * sum(math.ceil(items / shard) for items in arms)


def makespan(clips: int, shard: int, gpus: int, rng) -> float:
    """Return simulated hours until the last shard: the next job goes to the next free GPU."""
    n = math.ceil(clips / shard)
    sizes = np.full(n, shard)
    sizes[-1] = clips - shard * (n - 1)
    times = sizes * GPU_HOURS * 3600 / PAPER_CLIPS * np.exp(rng.normal(0, SPREAD, n))
    times[rng.random(n) < STRAGGLERS[0]] *= STRAGGLERS[1]
    free = [0.0] * gpus
    pending = list(times)
    ends = []
    for work in pending:  # a list that grows: what a failure leaves is queued again
        start = heapq.heappop(free)
        took = work + START_S
        if rng.random() < FAILURES:
            done = rng.random() * work
            pending.append(work - done + min(done, BATCH_S / 2))
            took = done + START_S
        heapq.heappush(free, start + took)
        ends.append(start + took)
    return max(ends) / 3600


def storage(clips: int, shard: int) -> dict[str, float]:
    """Return files and GB of a dataset: audio shards, the hub folder's copies, everything else."""
    gb = clips * CONFIG["audio"]["duration_s"] * 32_000 * 2 * FLAC_SHARE / 1e9
    subsets = 1 + sum(CONFIG["dataset"]["subsets"].values())
    n = math.ceil(clips / shard)
    return {
        "hours": clips * CONFIG["audio"]["duration_s"] / 3600,
        "files": 11 * n,  # captions, audio, scores, two ledgers; log and benchmark of three jobs
        "shard_gb": shard * gb / clips,
        "audio_gb": gb,
        "hub_gb": gb * subsets,
    }


def simulate() -> dict:
    """Return {(clips, shard, gpus): hours at the 5th, 50th and 95th percentile}."""
    rng = np.random.default_rng(0)
    found = {}
    for shard in SHARDS:
        for gpus in GPUS:
            hours = [makespan(PAPER_CLIPS, shard, gpus, rng) for _ in range(RUNS)]
            found[shard, gpus] = np.percentile(hours, [5, 50, 95])
    return found


def draw(found: dict) -> None:
    """Draw the makespan against the number of GPUs, with the ideal line."""
    import matplotlib

    matplotlib.use("Agg")
    matplotlib.rcParams["svg.hashsalt"] = "scaling"
    from matplotlib import pyplot as plt

    figure, axes = plt.subplots(figsize=(6.5, 4.2), layout="constrained")
    axes.plot(GPUS, [GPU_HOURS / g for g in GPUS], "--", color="0.6", label="ideal: 100 h / GPUs")
    for shard in SHARDS:
        low, middle, high = np.array([found[shard, g] for g in GPUS]).T
        axes.plot(GPUS, middle, marker="o", ms=4, label=f"{shard} clips a shard")
        axes.fill_between(GPUS, low, high, alpha=0.2)
    axes.set(xscale="log", yscale="log", xlabel="GPUs", ylabel="hours until the last clip")
    axes.set_xticks(GPUS, GPUS)
    axes.set_yticks([2, 5, 10, 20, 50, 100], [2, 5, 10, 20, 50, 100])
    axes.minorticks_off()
    axes.grid(alpha=0.3)
    axes.legend(frameon=False)
    figure.savefig(ROOT / "docs/scaling.png", dpi=130)


def table(header: list[str], rows: list[list]) -> str:
    """Return a Markdown table."""
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join(f"| {' | '.join(map(str, line))} |" for line in lines)


def graph_table() -> str:
    """Run the dry runs and return their table."""
    header = ["clips", "clips a shard", "sharded jobs", "wall s", "processor s", "peak MB"]
    rows = []
    for clips, shard in RUNS_AT:
        wall, cpu, mb = dry_run(clips, shard)
        found = [f"{wall:.1f}", f"{cpu:.1f}", f"{mb:.0f}"]
        rows.append([f"{clips:,}", shard, f"{jobs(clips, shard):,}", *found])
    return table(header, rows)


def submissions_table() -> str:
    """Count calls of sbatch, job by job and with arrays of at most 1,000 jobs."""
    header = ["clips", "clips a shard", "one call a job", "with arrays of 1,000"]
    rows = []
    for clips, shard in RUNS_AT:
        arrays = len(CONFIG["arms"]["compared"]) + math.ceil(math.ceil(clips / shard) / 1000)
        rows.append([f"{clips:,}", shard, f"{jobs(clips, shard):,}", 3 * arrays])
    return table(header, rows)


def storage_table() -> str:
    """List files and sizes at the paper's 178 hours and at 10,000 hours."""
    header = ["clips", "hours", "clips a shard", "GB a shard", "files", "audio GB", "hub GB"]
    rows = []
    for clips, shard in ((21_433, 512), (1_200_000, 512), (1_200_000, 4096)):
        kept = storage(clips, shard)
        rows.append(
            [f"{clips:,}", f"{kept['hours']:,.0f}", shard, f"{kept['shard_gb']:.1f}"]
            + [f"{kept[key]:,.0f}" for key in ("files", "audio_gb", "hub_gb")]
        )
    return table(header, rows)


def spans_table(found: dict) -> str:
    """List the simulated hours: median, 5th and 95th percentile."""
    rows = []
    for gpus in GPUS:
        spans = [found[shard, gpus] for shard in SHARDS]
        rows.append([gpus, *(f"{b:.1f} ({a:.1f} - {c:.1f})" for a, b, c in spans)])
    return table(["GPUs", *(f"{shard} clips a shard" for shard in SHARDS)], rows)


def page(graph: str, found: dict) -> str:
    """Return docs/scaling.md."""
    share, times = STRAGGLERS
    hour = PAPER_CLIPS / GPU_HOURS
    return f"""# Scaling

Written by `docs/scaling.py` (`make scaling`); change its assumptions there and run it again. Nothing
here was measured on a GPU or on a cluster of them.

## The graph of jobs

`snakemake -n results/conceptcaps.parquet` on a shared machine of 2 cores. Wall time depends on
what else runs there; processor time hardly does.

<!-- graph -->
{graph}
<!-- /graph -->

Python's imports are about half of the first row. The graph grows with shards, not with clips: from
a million clips on take larger shards.

## Submissions

Jobs of the sharded stages (captions, audio, CLAP) of all arms; about 20 more run once. With job
arrays the jobs of one rule that are ready together need one call; the last column is the least
number, when all jobs of a rule and arm are ready at once. 1,000 is about Slurm's default
MaxArraySize.

{submissions_table()}

## Storage

Mono FLAC at 32 kHz and 16 bit, {CONFIG["audio"]["duration_s"]:.0f} s a clip, at the size of PCM: the upper bound.
The hub folder holds the audio once more, and that of its subsets. Eleven files a shard: captions,
audio, CLAP scores, two ledgers, and a log and a benchmark of each of three jobs; Snakemake keeps a
record of each output beside them.

{storage_table()}

## Makespan of the audio, simulated

Shard times are the paper's {GPU_HOURS} GPU-hours for {PAPER_CLIPS:,} clips (all stages; taken for the
audio, which is nearly all of it): {hour:.0f} clips a GPU-hour. Each job goes to the next free GPU and
starts in {START_S} s (assumed). Shard times vary by {SPREAD:.0%} (log-normal); {share:.0%} of the jobs take
{times:.0f} times as long; {FAILURES:.0%} are killed at a random time and go on behind their last finished
batch, at the end of the queue. Hours, median (5th - 95th percentile) of {RUNS} runs:

{spans_table(found)}

![Makespan against GPUs](scaling.png)

The roofline of an H200 promises about {ROOFLINE:,} clips an hour (MusicGen-large in bf16, batch 96),
{ROOFLINE / hour:.0f} times the paper's figure: a shard of 512 would take {512 / ROOFLINE * 60:.0f} minutes.

## Shard sizes

- **512** (the default) up to 200,000 clips: {512 / hour:.1f} hours a shard at the paper's speed, 1 GB.
- **128** where more than 16 GPUs wait for {PAPER_CLIPS:,} clips at that speed: the end comes sooner,
  for four times the jobs.
- **2,048** with an engine near the roofline: shards of a few minutes pay for the jobs' start too often.
- **4,096** from a million clips on: fewer files, and a graph that is planned in seconds.

`shards.items` says which job makes a clip, not what it is; still a change makes all shards anew, so
choose it before the run. Growing `tags.items` later adds shards only.
"""


def main() -> None:
    """Measure, simulate, write."""
    target = ROOT / "docs/scaling.md"
    if "--no-dry-runs" in sys.argv:
        kept = re.search(r"<!-- graph -->\n(.*)\n<!-- /graph -->", target.read_text(), re.DOTALL)
        graph = kept[1]
    else:
        graph = graph_table()
    found = simulate()
    draw(found)
    target.write_text(page(graph, found))


if __name__ == "__main__":
    main()
