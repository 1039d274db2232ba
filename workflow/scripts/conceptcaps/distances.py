"""FAD and KAD of sets of clips against a reference: at equal N, with floor, intervals and verdicts.

A verdict on two sets is given only where their intervals do not overlap.
"""

from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from itertools import combinations

import numpy as np
from threadpoolctl import threadpool_info, threadpool_limits

from conceptcaps import frechet, io, mmd, results, runlog, seeding
from conceptcaps.errors import InputError

_LEAST_FOR_INFINITY = 8  # clips
NAMES = ("fad", "kad")


@dataclass(frozen=True)
class Spec:
    """Config section `scores.fad`, as far as the distances read it."""

    bootstraps: int  # resamples of the clips on both sides, for the 95 % intervals
    floor_splits: int  # random splits of the reference against itself
    infinity_sizes: int  # sizes of subsets that FAD infinity is read from, 3 or more
    infinity_repeats: int  # subsets of each size


@dataclass(frozen=True)
class Clips:
    """A set of clips: ids, and their embeddings [N, D]."""

    ids: list[str]
    x: np.ndarray


def score(
    *, reference, controls, shards: dict, spec: Spec, recipe: dict, seed: int, output
) -> None:
    """Measure every arm and control against the reference; write what `measure` returns as JSON.

    Args:
        reference: EMBEDDINGS table.
        controls: EMBEDDINGS table with ids `<control>-<number>`.
        shards: arm -> its CLAP tables.
        spec: config.
        recipe: what the embeddings depend on, kept with every result.
        seed: the global seed.
        output: JSON file.

    Raises:
        InputError: as `measure`, for a table.
    """
    measured = measure(
        {arm: read_clips(paths) for arm, paths in shards.items()},
        reference=read_clips([reference]),
        controls=control_groups(read_clips([controls])),
        spec=spec,
        recipe=recipe,
        seed=seed,
    )
    io.write_json(output, measured)


def measure(
    arms: dict[str, Clips],
    *,
    reference: Clips,
    controls: dict[str, Clips],
    spec: Spec,
    recipe: dict,
    seed: int,
) -> dict:
    """Return {"arms", "controls", "control_floors": {name: [metric, ...]}, "floor", "comparisons"}.

    All arms are measured at the same N: that of the smallest arm, and no more than the reference
    has, since FAD falls with N. Of larger arms N clips are drawn, first those that all arms have
    (the same tag sets); controls have at most N. The reference side is always the whole reference.
    Intervals: bootstrap over clips on both sides, the same resampled reference for all sets and the
    same draw for sets of one size, hence paired; they are shifted by (value - bootstrap mean),
    because duplicates in resamples raise both distances. fad_infinity: see `frechet.extrapolate`,
    from all clips of the arm; its interval is FAD's, around its own value, widened by the line's
    error. Floor: what N clips of the reference's own kind would have, see `_floor`; controls of
    fewer clips have one of their own size under "control_floors". N counts clips everywhere.

    Raises:
        InputError: as `frechet.frechet_distance`, naming the set.
    """
    base, offset = reference.x, reference.x.mean(axis=0)
    n = min(len(base), *(len(arm.ids) for arm in arms.values()))
    for name, clips in (arms | controls).items():
        frechet.check_same_dimension(base, clips.x, name)
    everywhere = set.intersection(*(set(arm.ids) for arm in arms.values()))
    sets = {
        name: _draw(clips, n, everywhere, seed) - offset  # distances do not change
        for name, clips in (arms | controls).items()
    }
    base = base - offset
    recipe = {
        "embeddings": recipe,
        **asdict(spec),
        "seed": seed,
        "n_reference": len(base),
        "kad_bandwidth": mmd.median_distance(base),
        **results.versions("numpy"),
    }
    values, draws = resample(sets, base, recipe=recipe)
    measured = {
        name: _metrics(NAMES, values[name], draws[name], len(sets[name]), "lower", recipe)
        for name in sets
    }
    for arm, clips in arms.items():
        fitted = frechet.fit_gaussian(base)
        if n >= _LEAST_FOR_INFINITY:
            spread = draws[arm][:, 0] - values[arm][0]
            far = _infinity(arm, clips.x - offset, fitted, n, spread, recipe)
            measured[arm].append(far)
    for name in sets:
        for metric in measured[name]:
            print(f"{name}: {_said(metric)} ({metric['n']} clips, {len(base)} of the reference)")
    floors = {size: _floor(base, size, recipe=recipe) for size in {n, *map(len, sets.values())}}
    return {
        "arms": {name: measured[name] for name in arms},
        "controls": {name: measured[name] for name in controls},
        "control_floors": {name: floors[len(sets[name])] for name in controls},
        "floor": floors[n],
        "comparisons": compare({arm: (measured[arm], draws[arm]) for arm in arms}),
    }


def _said(metric: dict) -> str:
    return (
        f"{metric['name']} {metric['value']:.4f} [{metric['ci_low']:.4f}, {metric['ci_high']:.4f}]"
    )


def resample(sets, base, *, recipe) -> tuple[dict, dict]:
    """Return {set: (FAD, KAD)} and {set: [bootstraps, 2]} resampled, centred on these values.

    Args:
        sets: {name: embeddings [N, D]}.
        base: embeddings of the reference [M, D].
        recipe: `bootstraps`, `seed` and `kad_bandwidth`.
    """
    rounds, bandwidth = recipe["bootstraps"], recipe["kad_bandwidth"]
    counts = {}  # set size -> [1 + rounds, size]; the first row is the set itself
    for size in {len(base), *map(len, sets.values())}:
        counts[size] = np.ones((1 + rounds, size))
    base_counts = np.ones((1 + rounds, len(base)))
    for b in range(1, 1 + rounds):
        rng = seeding.item_rng(recipe["seed"], "fad/bootstrap", str(b - 1))
        base_counts[b] = _counts(rng, len(base))
        for size in sorted(counts):
            counts[size][b] = _counts(rng, size)

    def distances(b: int) -> list[float]:
        reference = frechet.fit_gaussian(base, base_counts[b] if b else None)
        fitted = (frechet.fit_gaussian(x, counts[len(x)][b] if b else None) for x in sets.values())
        return [frechet.gaussian_distance(own, reference) for own in fitted]

    rows = runlog.progress(_side_by_side(distances, range(1 + rounds)), what="resamples")
    fad = dict(zip(sets, np.array(list(rows)).T, strict=True))
    inner = mmd.kernel_sums(base, base, base_counts, base_counts, bandwidth=bandwidth)
    values, draws = {}, {}
    for name, x in sets.items():
        kad = mmd.resampled_distances(
            x, base, counts[len(x)], base_counts, bandwidth=bandwidth, inner=inner
        )
        both = np.column_stack([fad[name], kad])
        values[name] = both[0]
        draws[name] = both[1:] - both[1:].mean(axis=0) + both[0]
    return values, draws


def _side_by_side(work: Callable, items: Iterable) -> Iterator:
    """Yield work(item) in order, from as many threads as BLAS has been given, each with one of its.

    Factorisations of 512 x 512 hardly gain by several threads, resamples do; and the last digit
    does not depend on how many there are.
    """
    threads = max((library["num_threads"] for library in threadpool_info()), default=1)
    with threadpool_limits(1), ThreadPoolExecutor(threads) as pool:
        yield from pool.map(work, items)


def _counts(rng: np.random.Generator, n: int) -> np.ndarray:
    return np.bincount(rng.integers(0, n, n), minlength=n)


def _infinity(arm, x, reference, n, spread, recipe) -> dict:
    rng = seeding.item_rng(recipe["seed"], "fad/infinity", arm)
    line = frechet.extrapolate(
        x,
        reference,
        largest=n,
        sizes=recipe["infinity_sizes"],
        repeats=recipe["infinity_repeats"],
        rng=rng,
    )
    half = 1.96 * np.sqrt(spread.var() + line.error**2)
    told = {key: value for key, value in asdict(line).items() if key != "value"}
    return asdict(
        results.MetricResult(
            "fad_infinity",
            line.value,
            line.value - float(half),
            line.value + float(half),
            len(x),
            "lower",
            {**recipe, **told},
        )
    )


def _floor(base, n, *, recipe) -> list[dict]:
    """Return FAD and KAD of n clips against base [M, D] where both are of one distribution.

    Disjoint random parts of base, min(n, M / 2) clips against the rest, are measured and scaled to
    the sizes n and M: for equal distributions FAD's expectation, and the spread of both, go with
    1/n + 1/M. The value is the mean over splits; the interval, their 2.5 and 97.5 percentiles.

    **Source:** Gui et al. 2024 for FAD's bias in 1/n; Gretton et al. 2012 for KAD's null.
    """
    part = min(n, len(base) // 2)
    if part < 2:
        raise InputError(
            f"reference: {len(base)} clips are too few to be split; at least 4 needed."
        )
    draws = np.empty((recipe["floor_splits"], 2))
    for split in range(recipe["floor_splits"]):
        rng = seeding.item_rng(recipe["seed"], "fad/floor", str(split))
        order = rng.permutation(len(base))
        a, b = base[order[:part]], base[order[part:]]
        draws[split] = (
            frechet.frechet_distance(a, b),
            mmd.kernel_distance(a, b, bandwidth=recipe["kad_bandwidth"]),
        )
    rest = len(base) - part
    scale = (1 / n + 1 / len(base)) / (1 / part + 1 / rest)
    draws *= scale
    recipe = {**recipe, "split_clips": [part, rest], "scaled_by": scale}
    names = [f"{name}_floor" for name in NAMES]
    return _metrics(names, draws.mean(axis=0), draws, n, "none", recipe)


def _metrics(names, values, draws, n, direction, recipe) -> list[dict]:
    low, high = np.quantile(draws, [0.025, 0.975], axis=0)
    return [
        asdict(results.MetricResult(name, float(value), float(lo), float(hi), n, direction, recipe))
        for name, value, lo, hi in zip(names, values, low, high, strict=True)
    ]


def compare(measured: dict[str, tuple[list[dict], np.ndarray]]) -> list[dict]:
    """Tell arms apart: rows as of `textmetrics.compare`, from metrics and draws [B, 2] of each arm.

    The verdict is "higher" or "lower", or "not separable" when the arms' own intervals overlap.
    """
    rows = []
    for arm, against in combinations(measured, 2):
        (ours, drawn), (theirs, other_drawn) = measured[arm], measured[against]
        for k, name in enumerate(NAMES):
            low, high = np.quantile(drawn[:, k] - other_drawn[:, k], [0.025, 0.975])
            a, b = ours[k], theirs[k]
            apart = a["ci_low"] > b["ci_high"] or a["ci_high"] < b["ci_low"]
            rows.append(
                {
                    "metric": name,
                    "arm": arm,
                    "against": against,
                    "difference": a["value"] - b["value"],
                    "ci_low": float(low),
                    "ci_high": float(high),
                    "verdict": ("higher" if a["value"] > b["value"] else "lower")
                    if apart
                    else "not separable",
                }
            )
    return rows


def _draw(clips: Clips, n: int, everywhere: set[str], seed: int) -> np.ndarray:
    """Return n rows, in an order that depends on ids and seed only."""

    def key(i: int):
        name = clips.ids[i]
        return name not in everywhere, seeding.item_seed(seed, "fad/draw", name)

    return clips.x[sorted(range(len(clips.ids)), key=key)[:n]]


def control_groups(controls: Clips) -> dict[str, Clips]:
    """Return {control: its clips} of clips with ids `<control>-<number>`."""
    names = [name.rsplit("-", 1)[0] for name in controls.ids]
    groups = {}
    for name in Counter(names):
        rows = [i for i, other in enumerate(names) if other == name]
        x = frechet.checked(controls.x[rows], f"control {name}")
        groups[name] = Clips([controls.ids[i] for i in rows], x)
    return groups


def read_clips(paths) -> Clips:
    """Read ids and audio embeddings of tables with these columns.

    Raises:
        InputError: embeddings differ in their dimension, are not finite, or fewer than 2.
    """
    ids, rows = [], []
    for path in paths:
        table = io.read_table(path, ["id", "audio_embedding"])
        ids += table["id"].to_pylist()
        rows += list(table["audio_embedding"].to_numpy())
    where = str(paths[0]) + (f" and {len(paths) - 1} more" if len(paths) > 1 else "")
    if len({len(row) for row in rows}) > 1:
        raise InputError(f"{where}: embeddings of different dimensions. Remake these tables.")
    x = np.array(rows, dtype=np.float64).reshape(len(rows), -1 if rows else 0)
    return Clips(ids, frechet.checked(x, where))
