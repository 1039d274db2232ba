"""What jobs used, from Snakemake's benchmark files, and what to ask a cluster for next time.

    python -m conceptcaps.benchmarks results/benchmarks

prints the key `set-resources` of a profile: for every rule, from the most that a job of it used,

    mem_mb  = 500 MB for Snakemake in the job + 1.5 x peak resident memory, in steps of 500 MB
    runtime = 3 x longest wall time, in steps of 5 minutes, at least 10

times the attempt, as in `grows` of rules/common.smk.
"""

import csv
import math
import sys
from dataclasses import dataclass
from pathlib import Path

from conceptcaps.errors import InputError

SNAKEMAKE_MB = 500
MEMORY_MARGIN, MEMORY_STEP_MB = 1.5, 500
TIME_MARGIN, TIME_STEP_MIN, TIME_LEAST_MIN = 3.0, 5, 10


@dataclass(frozen=True)
class Usage:
    """The most that one job of a rule used."""

    rule: str
    jobs: int
    rss_mb: float  # peak resident memory, MB
    wall_s: float  # seconds

    @property
    def mem_mb(self) -> int:
        """Return the memory to ask for, MB."""
        wanted = SNAKEMAKE_MB + MEMORY_MARGIN * self.rss_mb
        return MEMORY_STEP_MB * math.ceil(wanted / MEMORY_STEP_MB)

    @property
    def runtime_min(self) -> int:
        """Return the time to ask for, minutes."""
        steps = math.ceil(TIME_MARGIN * self.wall_s / 60 / TIME_STEP_MIN)
        return max(TIME_LEAST_MIN, TIME_STEP_MIN * steps)


def read_usage(directory: str | Path) -> list[Usage]:
    """Return the usage of every rule with benchmark files `<rule>.tsv` or `<rule>/**/*.tsv`.

    Memory of a job that ended before it was first measured is missing in its file, and counts as 0.

    Raises:
        InputError: there are no benchmark files, or one is not Snakemake's.
    """
    directory = Path(directory)
    found: dict[str, list[tuple[float, float]]] = {}
    for path in sorted(directory.rglob("*.tsv")):
        rule = path.relative_to(directory).with_suffix("").parts[0]
        with path.open(newline="") as file:
            for row in csv.DictReader(file, delimiter="\t"):
                try:
                    used = (_number(row["max_rss"]), float(row["s"]))
                except (KeyError, ValueError, TypeError) as error:
                    raise InputError(
                        f"{path}: is not a benchmark file of Snakemake ({error})."
                    ) from error
                found.setdefault(rule, []).append(used)
    if not found:
        raise InputError(f"{directory}: there are no benchmark files (*.tsv). Run something first.")
    return [
        Usage(rule, len(jobs), max(rss for rss, _ in jobs), max(wall for _, wall in jobs))
        for rule, jobs in sorted(found.items())
    ]


def _number(text: str) -> float:
    return 0.0 if text in ("-", "NA", "nan") else float(text)


def set_resources(usage: list[Usage]) -> str:
    """Return the key `set-resources` of a profile, as YAML, with what was measured as comments."""
    lines = ["set-resources:"]
    for one in usage:
        lines += [
            f"  {one.rule}: # {one.jobs} jobs, at most {one.rss_mb:.0f} MB and {one.wall_s:.0f} s",
            f"    mem_mb: {one.mem_mb} * attempt",
            f"    runtime: {one.runtime_min} * attempt",
        ]
    return "\n".join(lines)


if __name__ == "__main__":
    try:
        print(set_resources(read_usage(sys.argv[1])))
    except InputError as error:
        raise SystemExit(f"error: {error}") from error
