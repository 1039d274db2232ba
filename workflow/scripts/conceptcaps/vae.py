"""A beta-VAE of tag sets: which tags go together (Higgins et al. 2017; paper section 3.3)."""

import math
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import load_file, save_file
from torch import nn
from torch.nn import functional as F

from conceptcaps import tagmetrics
from conceptcaps.categories import CATEGORIES
from conceptcaps.constraints import Constraints
from conceptcaps.errors import InputError
from conceptcaps.io import atomic, read_json, read_rows, write_json, write_table
from conceptcaps.results import MetricResult, bootstrap_mean, versions, write_metrics
from conceptcaps.runlog import progress
from conceptcaps.schemas import VAE_HISTORY, VAE_LATENT
from conceptcaps.seeding import item_seed, seed_everything
from conceptcaps.taxonomy import load_exclusive, load_implications, vocabulary

BOUND_SAMPLES = 64  # of z, for the importance-weighted bound


@dataclass(frozen=True)
class Spec:
    """One of the config's `vae.presets`."""

    hidden: int  # width of the one hidden layer on each side
    latent: int  # Z, dimensions of z
    beta: float  # weight of the KL term
    learning_rate: float  # of Adam; the peak where the schedule is one_cycle
    schedule: str  # constant | one_cycle
    epochs: int
    batch_size: int
    input_dropout: float  # share of input tags hidden while training
    crossover: float  # share of the training rows that swap categories with another row


@dataclass(frozen=True)
class Sampling:
    """The keys of config section `tags` that the prior and its figures depend on."""

    prior: str  # aggregate | normal
    min_categories: int  # for the figure 'share of samples with enough categories'
    max_tags: int


@dataclass(frozen=True)
class Rows:
    """The distilled tag sets as arrays, float32 [N, D]."""

    train: torch.Tensor
    validation: torch.Tensor  # for choices
    test: torch.Tensor  # for figures
    categories: dict  # the taxonomy, {category: [tag]}

    @property
    def heldout(self) -> torch.Tensor:
        """Return validation and test rows together."""
        return torch.cat([self.validation, self.test])


def read_sets(pairs: str | Path, taxonomy: str | Path) -> Rows:
    """Read the pairs' tag sets by split.

    Raises:
        InputError: there are no training rows, or none that are held out for testing.
    """
    categories = read_json(taxonomy)
    rows = read_rows(pairs, ["aspect_list", "split"])
    train, validation, test = (
        multi_hot([r["aspect_list"] for r in rows if r["split"] == split], vocabulary(categories))
        for split in ("train", "validation", "test")
    )
    if not len(train) or not len(test):
        raise InputError(
            f"{pairs}: {len(train)} training and {len(test)} test rows; both are needed. Set "
            "distill.heldout, or bring more rows."
        )
    return Rows(train, validation, test, categories)


class BetaVAE(nn.Module):
    """D-H-Z-H-D, fully connected, ReLU; input and output are multi-hot tag sets."""

    def __init__(self, n_tags: int, spec: Spec):
        """Make an untrained model of `n_tags` (D) tags."""
        super().__init__()
        self.dropout = nn.Dropout(spec.input_dropout)
        self.encoder = nn.Sequential(nn.Linear(n_tags, spec.hidden), nn.ReLU())
        self.mean = nn.Linear(spec.hidden, spec.latent)
        self.log_variance = nn.Linear(spec.hidden, spec.latent)
        self.decoder = nn.Sequential(
            nn.Linear(spec.latent, spec.hidden), nn.ReLU(), nn.Linear(spec.hidden, n_tags)
        )

    def encode(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Return mean and log-variance of q(z|x), each [B, Z], for multi-hot x [B, D]."""
        hidden = self.encoder(self.dropout(x))
        return self.mean(hidden), self.log_variance(hidden)

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Return logits [B, D] of one posterior sample, and q's mean and log-variance."""
        mean, log_variance = self.encode(x)
        z = mean + torch.randn_like(mean) * (0.5 * log_variance).exp()
        return self.decoder(z), mean, log_variance


def negative_elbo(model: BetaVAE, x: torch.Tensor, beta: float) -> torch.Tensor:
    """Return -log p(x|z) + beta KL(q(z|x) || N(0, I)) in nats a row, averaged over x [B, D]."""
    logits, mean, log_variance = model(x)
    reconstruction = F.binary_cross_entropy_with_logits(logits, x, reduction="none").sum(-1)
    kl = 0.5 * (mean.square() + log_variance.exp() - 1 - log_variance).sum(-1)
    return (reconstruction + beta * kl).mean()


def fit(
    *,
    pairs: str | Path,
    taxonomy: str | Path,
    taxonomy_file: str | Path,
    spec: Spec,
    sampling: Sampling,
    seed: int,
    model: str | Path,
    config: str | Path,
    metrics: str | Path,
    history: str | Path,
    latent: str | Path,
) -> None:
    """Fit the VAE on the training pairs; measure test rows and prior samples apart.

    Writes the model with its prior, its config, the figures, the training curve and the place of
    every pair in latent space (`schemas.VAE_LATENT`).

    Raises:
        InputError: there are no training or test rows, or the loss stops being finite.
    """
    rows = read_sets(pairs, taxonomy)
    vae, curve = train(rows, spec, seed)
    prior = prior_of(vae, rows.train, sampling.prior)
    with atomic(model) as temporary:
        save_file({**vae.state_dict(), **prior}, temporary)
    description = {"tags": vocabulary(rows.categories), "taxonomy": rows.categories}
    write_json(config, description | {"spec": asdict(spec)})
    write_table(history, curve, VAE_HISTORY)
    write_table(latent, _places(vae, pairs, description["tags"]), VAE_LATENT)
    limits = {"min_categories": sampling.min_categories, "max_tags": sampling.max_tags}
    constraints = Constraints(
        rows.categories,
        groups=load_exclusive(taxonomy_file),
        implications=load_implications(taxonomy_file),
        **limits,
    )
    recipe = {"spec": asdict(spec), "sampling": asdict(sampling), "seed": seed, **versions("torch")}
    results = measure(vae, prior, rows, constraints, unseen=rows.test, seed=seed, recipe=recipe)
    known = rows.train.numpy().astype(bool), rows.test.numpy().astype(bool)
    results += tagmetrics.ceilings(*known, seed=seed, recipe={"seed": seed})
    write_metrics(metrics, results)
    for result in results:
        print(f"{result.name}: {result.value:.4f} (n={result.n})")


@torch.no_grad()
def _places(vae: BetaVAE, pairs: str | Path, tags: list[str]) -> list[dict]:
    rows = read_rows(pairs, ["id", "split", "aspect_list", "genre_aspects"])
    means, _ = vae.encode(multi_hot([row.pop("aspect_list") for row in rows], tags))
    return [row | {"mean": mean.tolist()} for row, mean in zip(rows, means, strict=True)]


def load(model: str | Path, config: str | Path) -> tuple[BetaVAE, dict, dict]:
    """Return the fitted VAE in evaluation mode, its prior's tensors, and its config."""
    description = read_json(config)
    vae = BetaVAE(len(description["tags"]), Spec(**description["spec"]))
    state = load_file(model)
    prior = {name: state.pop(name) for name in list(state) if name.startswith("prior.")}
    vae.load_state_dict(state)
    return vae.eval(), prior, description


def multi_hot(tag_lists: list[list[str]], tags: list[str]) -> torch.Tensor:
    """Return float32 [N, D] with 1 where row n has tag d."""
    index = {tag: d for d, tag in enumerate(tags)}
    x = torch.zeros(len(tag_lists), len(tags))
    for n, row in enumerate(tag_lists):
        x[n, [index[tag] for tag in row]] = 1
    return x


def train(rows: Rows, spec: Spec, seed: int) -> tuple[BetaVAE, list[dict]]:
    """Return the fitted VAE in evaluation mode, and its curve (rows of `VAE_HISTORY`).

    Raises:
        InputError: the loss stops being finite.
    """
    seed_everything(item_seed(seed, "fit_vae", "training"))
    x = rows.train
    sizes = torch.tensor([len(rows.categories[category]) for category in CATEGORIES])
    category_of = torch.repeat_interleave(torch.arange(len(sizes)), sizes)
    vae = BetaVAE(x.shape[1], spec)
    optimiser = torch.optim.Adam(vae.parameters(), lr=spec.learning_rate)
    steps = spec.epochs * math.ceil(len(x) / spec.batch_size)
    schedule = (
        torch.optim.lr_scheduler.OneCycleLR(optimiser, spec.learning_rate, total_steps=steps)
        if spec.schedule == "one_cycle"
        else torch.optim.lr_scheduler.ConstantLR(optimiser, factor=1.0)
    )
    curve = []
    for epoch in progress(range(spec.epochs), what="VAE epochs"):
        vae.train()
        losses = []
        for batch in torch.randperm(len(x)).split(spec.batch_size):
            sets = _cross(x, batch, category_of, spec.crossover) if spec.crossover else x[batch]
            loss = negative_elbo(vae, sets, spec.beta)
            if not torch.isfinite(loss):
                raise InputError(
                    f"vae: the loss is {loss.item()} in epoch {epoch}. Lower vae.presets' "
                    "learning_rate."
                )
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
            schedule.step()
            losses.append(loss.item())
        vae.eval()
        with torch.no_grad():
            heldout = negative_elbo(vae, rows.heldout, spec.beta).item()
        found = reconstruct(vae, rows.heldout)
        curve.append(
            {
                "epoch": epoch,
                "train_loss": float(np.mean(losses)),
                "heldout_loss": heldout,
                "heldout_jaccard": tagmetrics.micro_jaccard(rows.heldout, found),
            }
        )
    return vae, curve


def _cross(x, batch, category_of: torch.Tensor, share: float) -> torch.Tensor:
    """Return x[batch], where a `share` of the rows take half of their categories from other rows.

    The code of a set then says what each category holds, for combinations that no row has: held-out
    sets are reconstructed better. The prior is made of real rows alone, so samples follow those.
    """
    others = x[torch.randint(len(x), (len(batch),))]
    n_categories = int(category_of.max()) + 1
    swapped = torch.rand(len(batch), n_categories) < 0.5
    swapped &= torch.rand(len(batch), 1) < share
    return torch.where(swapped[:, category_of], others, x[batch])


@torch.no_grad()
def prior_of(vae: BetaVAE, x: torch.Tensor, kind: str) -> dict[str, torch.Tensor]:
    """Return the prior: an even mixture of K Gaussians of diagonal covariance.

    'aggregate' is the aggregate posterior itself, the mean of q(z|x) over the training rows x
    [K, D] (Tomczak and Welling 2018): samples stay where the decoder was trained, and its tags'
    shares are the data's. 'normal' is the paper's N(0, I), a mixture of one.
    """
    if kind == "normal":
        z_dim = vae.mean.out_features
        return {"prior.means": torch.zeros(1, z_dim), "prior.stds": torch.ones(1, z_dim)}
    mean, log_variance = vae.encode(x)
    return {"prior.means": mean, "prior.stds": (0.5 * log_variance).exp()}


@torch.no_grad()
def reconstruct(vae: BetaVAE, x: torch.Tensor) -> np.ndarray:
    """Return what the posterior means of x [N, D] decode to: bool [N, D]."""
    return (vae.decoder(vae.encode(x)[0]) > 0).numpy()


@torch.no_grad()
def log_bound(vae: BetaVAE, prior: dict, x: torch.Tensor, *, seed: int) -> np.ndarray:
    """Return the importance-weighted bound on ln p(x) under `prior` in nats, [N] (IWAE).

    L = ln 1/S sum_s p(x|z_s) p(z_s) / q(z_s|x), z_s ~ q(z|x), S = `BOUND_SAMPLES`.
    """
    generator = torch.Generator().manual_seed(seed % 2**63)
    mean, log_variance = vae.encode(x)
    std = (0.5 * log_variance).exp()
    bounds = np.empty(len(x))
    for n in range(len(x)):
        noise = torch.randn(BOUND_SAMPLES, mean.shape[1], generator=generator)
        z = mean[n] + std[n] * noise  # (S, Z)
        posterior = (-0.5 * noise.square() - std[n].log()).sum(-1)  # without (2 pi)^(Z/2)
        density = log_prior(prior, z) - posterior
        logits = vae.decoder(z)
        found = -F.binary_cross_entropy_with_logits(
            logits, x[n].expand_as(logits), reduction="none"
        ).sum(-1)
        bounds[n] = torch.logsumexp(found + density, 0).item() - math.log(BOUND_SAMPLES)
    return bounds


def log_prior(prior: dict, z: torch.Tensor) -> torch.Tensor:
    """Return ln p(z) + Z/2 ln 2 pi of the mixture, for z [S, Z]: [S]."""
    means, precision = prior["prior.means"], prior["prior.stds"].square().reciprocal()
    square = z.square() @ precision.T - 2 * z @ (means * precision).T  # (S, K)
    square = square + (means.square() * precision).sum(1)
    weighted = -0.5 * square - prior["prior.stds"].log().sum(1)
    return torch.logsumexp(weighted, 1) - math.log(len(means))


def measure(
    vae,
    prior,
    rows: Rows,
    constraints: Constraints,
    *,
    unseen: torch.Tensor,
    seed: int,
    recipe: dict,
) -> list[MetricResult]:
    """Measure the reconstruction and bound of `unseen` rows [N, D], and samples of the prior.

    `unseen` are the test rows for a figure, the validation rows for a choice.
    """
    from conceptcaps.tagsampler import Sampler  # it draws from the model that this module fits

    x = unseen.numpy().astype(bool)
    results = tagmetrics.reconstruction(x, reconstruct(vae, unseen), recipe)
    bound = bootstrap_mean(log_bound(vae, prior, unseen, seed=item_seed(seed, "fit_vae", "z")))
    results.append(
        MetricResult("heldout_log_likelihood", *bound, len(x), "higher", recipe | {"nats": 1})
    )
    rngs = [
        np.random.default_rng(item_seed(seed, "fit_vae", f"measure/{k}"))
        for k in range(tagmetrics.N_SAMPLES)
    ]
    return results + tagmetrics.of_samples(
        Sampler(vae, prior).sample(rngs),
        train=rows.train.numpy().astype(bool),
        unseen=x,
        constraints=constraints,
        seed=seed,
        recipe=recipe,
    )
