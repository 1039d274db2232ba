"""Seconds and memory of the Frechet and kernel distances at the sizes of the dataset.

    python benchmarks/frechet.py

Needs no model: the embeddings are Gaussian, of full rank, which is the slow case. The bars are
2 s and 200 MB for 1,000 against 1,000 clips, and 60 s for 21,433 against 1,000 with 200 bootstraps.
"""

import argparse
import json
import sys
import time
import tracemalloc
from pathlib import Path

import numpy as np
from threadpoolctl import threadpool_limits

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "workflow/scripts"))

from conceptcaps import allocator, frechet, mmd
from conceptcaps.distances import NAMES, resample


def timed(work) -> float:
    """Return the seconds of one call."""
    started = time.perf_counter()
    work()
    return time.perf_counter() - started


def main() -> None:
    """Measure, print, write JSON."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--clips", type=int, default=21_433)
    parser.add_argument("--reference", type=int, default=1000)
    parser.add_argument("--dimensions", type=int, default=512)
    parser.add_argument("--bootstraps", type=int, default=200)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--output", default="benchmark-frechet.json")
    options = parser.parse_args()
    threadpool_limits(options.threads)
    allocator.keep_freed()  # as `runlog.capture` does for every job
    rng = np.random.default_rng(0)
    x = rng.standard_normal((options.clips, options.dimensions))
    base = rng.standard_normal((options.reference, options.dimensions))
    part = x[: options.reference]
    seconds = sorted(timed(lambda: frechet.frechet_distance(part, base)) for _ in range(5))
    tracemalloc.start()
    frechet.frechet_distance(part, base)
    peak_mb = tracemalloc.get_traced_memory()[1] / 1e6
    tracemalloc.stop()
    recipe = {
        "bootstraps": options.bootstraps,
        "seed": 0,
        "kad_bandwidth": mmd.median_distance(base),
    }
    started, worked = time.perf_counter(), time.process_time()
    values, _ = resample({"x": x}, base, recipe=recipe)
    whole_s = time.perf_counter() - started
    record = vars(options) | {
        "equal_sizes_s": seconds[len(seconds) // 2],
        "equal_sizes_peak_mb": peak_mb,
        "with_bootstraps_s": whole_s,
        "with_bootstraps_cpu_s": time.process_time() - worked,
        "values": dict(zip(NAMES, map(float, values["x"]), strict=True)),
    }
    print(json.dumps(record, indent=2))
    Path(options.output).write_text(json.dumps(record, indent=2) + "\n")


if __name__ == "__main__":
    main()
