"""The choice of beta and crossover: a table of runs, measured on validation rows alone."""

from dataclasses import asdict, dataclass
from itertools import product
from pathlib import Path

from conceptcaps import vae
from conceptcaps.constraints import Constraints
from conceptcaps.errors import InputError
from conceptcaps.io import write_table
from conceptcaps.results import MetricResult, versions, write_metrics
from conceptcaps.runlog import progress
from conceptcaps.schemas import TAG_SWEEP
from conceptcaps.taxonomy import load_exclusive, load_implications


@dataclass(frozen=True)
class Spec:
    """Config section `vae.sweep`."""

    beta: tuple  # values that are tried, each with
    crossover: tuple  # each of these
    bars: dict  # {figure: [least, most]} that a run must keep to be chosen; null: no limit


def sweep(
    *,
    pairs: str | Path,
    taxonomy: str | Path,
    taxonomy_file: str | Path,
    base: dict,
    prior: str,
    spec: Spec,
    limits: dict,
    seed: int,
    table: str | Path,
    metrics: str | Path,
) -> None:
    """Fit a VAE for each beta and crossover, measure it on the validation rows, choose one.

    Test rows are not looked at: `fit_vae` measures them, once, with the preset that the choice
    was written into.

    Args:
        pairs: table `schemas.PAIRS`.
        taxonomy: the taxonomy as JSON, from the distillation.
        taxonomy_file: the taxonomy with its exclusive groups and implications.
        base: what the runs share: the keys of a preset but beta and crossover.
        prior: what z is drawn from.
        spec: the runs and the bars.
        limits: min_categories and max_tags.
        seed: global seed; the same for every run.
        table: parquet to write, one row a run (`schemas.TAG_SWEEP`).
        metrics: JSON to write: every figure with its interval, by run, and the choice.

    Raises:
        InputError: there are no validation rows.
    """
    rows = vae.read_sets(pairs, taxonomy)
    if not len(rows.validation):
        raise InputError(f"{pairs}: has no validation rows to choose on. Set distill.heldout.")
    constraints = Constraints(
        rows.categories,
        groups=load_exclusive(taxonomy_file),
        implications=load_implications(taxonomy_file),
        **limits,
    )
    runs, found = [], []
    for beta, crossover in progress(list(product(spec.beta, spec.crossover)), what="VAEs"):
        preset = vae.Spec(**base, beta=beta, crossover=crossover)
        fitted, _ = vae.train(rows, preset, seed)
        figures = vae.measure(
            fitted,
            vae.prior_of(fitted, rows.train, prior),
            rows,
            constraints,
            unseen=rows.validation,
            seed=seed,
            recipe={"spec": asdict(preset), "prior": prior, "seed": seed, **versions("torch")},
        )
        runs.append({"beta": beta, "crossover": crossover} | _values(figures))
        found.append(figures)
        print(", ".join(f"{name} {value:.4f}" for name, value in runs[-1].items()))
    chosen = choose(runs, spec.bars)
    for n, run in enumerate(runs):
        run |= {"holds": holds(run, spec.bars), "chosen": n == chosen}
    write_table(table, runs, TAG_SWEEP)
    write_metrics(
        metrics,
        [result for figures in found for result in figures],
        runs=[{key: run[key] for key in ("beta", "crossover", "holds", "chosen")} for run in runs],
    )
    print(f"chosen: beta {runs[chosen]['beta']}, crossover {runs[chosen]['crossover']}")


def choose(runs: list[dict], bars: dict) -> int:
    """Return the place of the run to take.

    Of the runs that hold all bars, the one that finds unseen sets likeliest: quality comes first,
    and among equals what generalises, not what copies its training rows. Where none holds all, the
    one that holds most.
    """
    kept = [sum(_holds(run[name], bar) for name, bar in bars.items()) for run in runs]
    return max(range(len(runs)), key=lambda n: (kept[n], runs[n]["heldout_log_likelihood"]))


def holds(run: dict, bars: dict) -> bool:
    """Tell whether a run keeps every bar."""
    return all(_holds(run[name], bar) for name, bar in bars.items())


def _holds(value: float, bar: list) -> bool:
    least, most = bar
    return (least is None or value >= least) and (most is None or value <= most)


def _values(figures: list[MetricResult]) -> dict[str, float]:
    return {result.name: result.value for result in figures if result.name in TAG_SWEEP.names}
