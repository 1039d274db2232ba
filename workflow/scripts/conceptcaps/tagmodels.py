"""Models of tag sets beside the VAE, and all of them in one table.

Every baseline is fitted to training rows, bool [N, D], draws sets and gives their ln p in nats.
"""

from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import torch
from torch.nn import functional as F

from conceptcaps import tagmetrics, vae
from conceptcaps.constraints import Constraints
from conceptcaps.io import write_table
from conceptcaps.results import MetricResult, bootstrap_mean, versions, write_metrics
from conceptcaps.runlog import progress
from conceptcaps.schemas import TAG_MODELS
from conceptcaps.seeding import item_rng, item_seed
from conceptcaps.taxonomy import load_exclusive, load_implications


@dataclass(frozen=True)
class Spec:
    """Config section `vae.baselines`."""

    smoothing: float  # pseudo-counts of a tag, on and off, in every component
    mixture_components: int
    mixture_steps: int  # of EM
    autoregressive_steps: int
    autoregressive_weight_decay: float


@dataclass(frozen=True)
class Model:
    """A fitted model of tag sets."""

    draw: Callable[[int, np.random.Generator], np.ndarray]  # n -> bool [n, D]
    log_prob: Callable[[np.ndarray], np.ndarray]  # bool [N, D] -> nats [N]


def mixture(x: np.ndarray, *, components: int, steps: int, smoothing: float, seed: int) -> Model:
    """Fit a mixture of independent Bernoullis by EM; one component is the independent model.

    Source: McLachlan and Peel 2000, latent class analysis.
    """
    x = x.astype(np.float64)
    rng = np.random.default_rng(seed)
    duty = rng.dirichlet(np.full(components, 0.2), len(x))  # responsibilities (N, K)
    for _ in range(steps if components > 1 else 1):
        mass = duty.sum(0)
        share = (duty.T @ x + smoothing * x.mean(0)) / (mass[:, None] + smoothing)
        share = np.clip(share, 1e-4, 1 - 1e-4)
        weight = (mass + 1) / (mass + 1).sum()
        joint = _log_joint(x, share, weight)
        duty = np.exp(joint - np.logaddexp.reduce(joint, axis=1)[:, None])

    def draw(n: int, rng: np.random.Generator) -> np.ndarray:
        return rng.random((n, x.shape[1])) < share[rng.choice(components, n, p=weight)]

    return Model(draw, lambda sets: np.logaddexp.reduce(_log_joint(sets, share, weight), axis=1))


def _log_joint(x: np.ndarray, share: np.ndarray, weight: np.ndarray) -> np.ndarray:
    """Return ln p(x, component): [N, K]."""
    return x @ np.log(share).T + (1 - x) @ np.log(1 - share).T + np.log(weight)


def autoregressive(
    x: np.ndarray, *, validation: np.ndarray, steps: int, weight_decay: float, seed: int
) -> Model:
    """Fit p(x) = prod_d p(x_d | x_<d), each a logistic regression; the frequent tags come first.

    Of `steps` steps of AdamW on all rows at once, the one that fits validation rows best is kept.
    Source: Frey 1998 (a fully visible sigmoid belief network).
    """
    order = np.argsort(-x.mean(0), kind="stable")
    rows, held = (torch.from_numpy(part[:, order].astype(np.float32)) for part in (x, validation))
    mask = torch.ones(x.shape[1], x.shape[1]).tril(-1)
    weight = torch.zeros(x.shape[1], x.shape[1], requires_grad=True)
    share = rows.mean(0).clamp(1e-3, 1 - 1e-3)
    bias = share.logit().clone().requires_grad_()
    optimiser = torch.optim.AdamW(
        [{"params": [weight], "weight_decay": weight_decay}, {"params": [bias], "weight_decay": 0}],
        lr=0.02,
    )

    def nats(sets: torch.Tensor) -> torch.Tensor:
        logits = sets @ (weight * mask).T + bias
        return F.binary_cross_entropy_with_logits(logits, sets, reduction="none").sum(1)

    best, kept = np.inf, None
    for _ in range(steps):
        optimiser.zero_grad()
        nats(rows).mean().backward()
        optimiser.step()
        with torch.no_grad():
            if (loss := nats(held).mean().item()) < best:
                best, kept = loss, ((weight * mask).numpy().copy(), bias.numpy().copy())
    w, b = kept

    def draw(n: int, rng: np.random.Generator) -> np.ndarray:
        sets = np.zeros((n, x.shape[1]), np.float32)
        for d in range(x.shape[1]):
            chance = 1 / (1 + np.exp(-(sets[:, :d] @ w[d, :d] + b[d])))
            sets[:, d] = rng.random(n) < chance
        return sets[:, np.argsort(order)].astype(bool)

    def log_prob(sets: np.ndarray) -> np.ndarray:
        ordered = sets[:, order].astype(np.float64)
        logits = ordered @ w.T + b
        return (ordered * logits - np.logaddexp(0, logits)).sum(1)

    return Model(draw, log_prob)


def compare(
    *,
    pairs: str | Path,
    taxonomy: str | Path,
    taxonomy_file: str | Path,
    presets: dict[str, vae.Spec],
    priors: dict[str, str],
    spec: Spec,
    limits: dict,
    seed: int,
    table: str | Path,
    metrics: str | Path,
) -> None:
    """Fit every model to the same rows and measure it in the same way; write table and JSON.

    Args:
        pairs: table `schemas.PAIRS`.
        taxonomy: the taxonomy as JSON, from the distillation.
        taxonomy_file: the taxonomy with its exclusive groups and implications.
        presets: {name: VAE}.
        priors: {name: what its z is drawn from}.
        spec: of the baselines.
        limits: min_categories and max_tags.
        seed: global seed.
        table: parquet to write, one row a model and figure (`schemas.TAG_MODELS`).
        metrics: JSON to write, the same figures by model, and the data's own noise.
    """
    rows = vae.read_sets(pairs, taxonomy)
    constraints = Constraints(
        rows.categories,
        groups=load_exclusive(taxonomy_file),
        implications=load_implications(taxonomy_file),
        **limits,
    )
    train, test, validation = (
        part.numpy().astype(bool) for part in (rows.train, rows.test, rows.validation)
    )
    settings = {"smoothing": spec.smoothing, "seed": item_seed(seed, "tagmodels", "em") % 2**32}
    baselines = {
        "independent": mixture(train, components=1, steps=1, **settings),
        "mixture": mixture(
            train, components=spec.mixture_components, steps=spec.mixture_steps, **settings
        ),
        "autoregressive": autoregressive(
            train,
            validation=validation,
            steps=spec.autoregressive_steps,
            weight_decay=spec.autoregressive_weight_decay,
            seed=seed,
        ),
    }
    recipe = {"baselines": asdict(spec), "seed": seed, **versions("torch", "scikit-learn")}
    found = {"data": tagmetrics.ceilings(train, test, seed=seed, recipe=recipe)}
    for name, model in baselines.items():
        bound = bootstrap_mean(model.log_prob(test))
        found[name] = [MetricResult("heldout_log_likelihood", *bound, len(test), "higher", recipe)]
        found[name] += tagmetrics.of_samples(
            model.draw(tagmetrics.N_SAMPLES, item_rng(seed, "tagmodels", name)),
            train=train,
            unseen=test,
            constraints=constraints,
            seed=seed,
            recipe=recipe,
        )
    for name, preset in progress(presets.items(), what="VAEs"):
        fitted, _ = vae.train(rows, preset, seed)
        prior = vae.prior_of(fitted, rows.train, priors[name])
        told = recipe | {"spec": asdict(preset), "prior": priors[name]}
        found[f"vae_{name}"] = vae.measure(
            fitted, prior, rows, constraints, unseen=rows.test, seed=seed, recipe=told
        )
    lines = [
        {"model": name} | {key: value for key, value in asdict(result).items() if key != "recipe"}
        for name, results in found.items()
        for result in results
    ]
    write_table(table, lines, TAG_MODELS)
    everything = [result for results in found.values() for result in results]
    by_model = {name: [result.name for result in results] for name, results in found.items()}
    write_metrics(metrics, everything, models=by_model)
    for line in lines:
        print(f"{line['model']:16} {line['name']}: {line['value']:.4f}")
