"""The form in which every figure leaves the workflow: a value with its interval, N and recipe."""

import math
from dataclasses import asdict, dataclass, field
from importlib.metadata import version
from pathlib import Path

import numpy as np

from conceptcaps.io import write_json


@dataclass(frozen=True)
class MetricResult:
    """One measured figure.

    `direction` is 'higher', 'lower' (which way is better) or 'none'. `recipe` holds every knob that
    the value depends on: models and revisions, sample rates, windows, seeds, package versions.
    """

    name: str
    value: float
    ci_low: float | None  # 95 % interval; None where the method has none
    ci_high: float | None
    n: int
    direction: str
    recipe: dict = field(default_factory=dict)


def bootstrap_mean(values, *, n_boot: int = 1000, seed: int = 0) -> tuple[float, float, float]:
    """Return the mean and its 95 % percentile bootstrap interval over items ([N] values)."""
    values = np.asarray(values, dtype=np.float64)
    rng = np.random.default_rng(seed)
    means = values[rng.integers(0, len(values), (n_boot, len(values)))].mean(axis=1)
    low, high = np.quantile(means, [0.025, 0.975])
    return float(values.mean()), float(low), float(high)


def mean(values, *, n_boot: int = 1000, seed: int = 0) -> tuple[float, float, float]:
    """Return the mean and its 95 % interval: of a share ([N] bool) Wilson's, else a bootstrap's."""
    values = np.asarray(values)
    return (
        share(values) if values.dtype == bool else bootstrap_mean(values, n_boot=n_boot, seed=seed)
    )


def share(values) -> tuple[float, float, float]:
    """Return the share of true values ([N] bool) and its 95 % interval, Wilson's.

    Near 0 and 1 a bootstrap's interval has no width and misses the truth.
    """
    values = np.asarray(values, dtype=bool)
    return wilson(int(values.sum()), len(values))


def wilson(successes: int, n: int) -> tuple[float, float, float]:
    """Return a share and its 95 % Wilson score interval.

    **Source:** Wilson 1927: (p + z²/2n ± z √(p(1 - p)/n + z²/4n²)) / (1 + z²/n), z = 1.96.
    """
    z, p = 1.959963984540054, successes / n
    centre = p + z**2 / (2 * n)
    half = z * math.sqrt(p * (1 - p) / n + z**2 / (4 * n**2))
    scale = 1 + z**2 / n
    low, high = (centre - half) / scale, (centre + half) / scale
    return p, min(p, max(0.0, low)), max(p, min(1.0, high))


def bootstrap_weights(n: int, *, n_boot: int, seed: int) -> np.ndarray:
    """Return how often each of n items is drawn in each resample, [n_boot, n].

    The same for equal arguments: figures of several arms over the same items are then paired.
    """
    rng = np.random.default_rng(seed)
    return rng.multinomial(n, np.full(n, 1 / n), size=n_boot)


def write_metrics(path: str | Path, results: list[MetricResult], **extra) -> None:
    """Write {"metrics": [...], **extra} as JSON."""
    write_json(path, {"metrics": [asdict(result) for result in results], **extra})


def versions(*packages: str) -> dict[str, str]:
    """Return the installed versions of packages, for a recipe."""
    return {package: version(package) for package in packages}
