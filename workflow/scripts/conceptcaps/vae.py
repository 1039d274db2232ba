"""A beta-VAE of tag sets: which tags go together (Higgins et al. 2017; paper section 3.3)."""

import math
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import load_file, save_file
from sklearn.mixture import GaussianMixture
from torch import nn
from torch.nn import functional as F

from conceptcaps.errors import InputError
from conceptcaps.io import atomic, read_json, read_rows, write_json, write_table
from conceptcaps.results import MetricResult, bootstrap_mean, versions, write_metrics
from conceptcaps.runlog import progress
from conceptcaps.schemas import VAE_HISTORY
from conceptcaps.seeding import item_seed, seed_everything
from conceptcaps.taxonomy import vocabulary

N_PRIOR_SAMPLES = 5000  # on which the prior's figures are measured


@dataclass(frozen=True)
class Spec:
    """One of the config's `vae.presets`."""

    hidden: int  # width of the one hidden layer on each side
    latent: int  # Z, dimensions of z
    beta: float  # weight of the KL term
    learning_rate: float  # of Adam
    epochs: int
    batch_size: int
    input_dropout: float  # share of input tags hidden while training


@dataclass(frozen=True)
class Sampling:
    """The keys of config section `tags` that the prior depends on."""

    prior: str  # aggregate | normal
    prior_components: int  # of the mixture
    min_categories: int  # for the figure 'share of samples with enough categories'


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
    spec: Spec,
    sampling: Sampling,
    seed: int,
    model: str | Path,
    config: str | Path,
    metrics: str | Path,
    history: str | Path,
) -> None:
    """Fit the VAE on the training pairs and the prior on its posterior; measure both.

    Raises:
        InputError: there are no training rows, or the loss stops being finite.
    """
    categories = read_json(taxonomy)
    tags = vocabulary(categories)
    rows = read_rows(pairs, ["aspect_list", "split"])
    x_train = multi_hot([r["aspect_list"] for r in rows if r["split"] == "train"], tags)
    x_heldout = multi_hot([r["aspect_list"] for r in rows if r["split"] != "train"], tags)
    if not len(x_train) or not len(x_heldout):
        raise InputError(
            f"{pairs}: {len(x_train)} training and {len(x_heldout)} held-out rows; both are "
            "needed. Set distill.heldout, or bring more rows."
        )
    seed_everything(item_seed(seed, "fit_vae", "training"))
    vae, curve = _train(x_train, x_heldout, spec)
    prior = _fit_prior(vae, x_train, sampling, seed)
    with atomic(model) as temporary:
        save_file({**vae.state_dict(), **prior}, temporary)
    write_json(config, {"tags": tags, "taxonomy": categories, "spec": asdict(spec)})
    write_table(history, curve, VAE_HISTORY)
    recipe = {"spec": asdict(spec), "sampling": asdict(sampling), "seed": seed, **versions("torch")}
    results = reconstruction_metrics(vae, x_heldout, recipe)
    results += prior_metrics(vae, prior, x_train, categories, sampling, seed, recipe)
    write_metrics(metrics, results)
    for result in results:
        print(f"{result.name}: {result.value:.4f} (n={result.n})")


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


def _train(x_train, x_heldout, spec: Spec) -> tuple[BetaVAE, list[dict]]:
    vae = BetaVAE(x_train.shape[1], spec)
    optimiser = torch.optim.Adam(vae.parameters(), lr=spec.learning_rate)
    curve = []
    for epoch in progress(range(spec.epochs), what="VAE epochs"):
        vae.train()
        losses = []
        for batch in torch.randperm(len(x_train)).split(spec.batch_size):
            loss = negative_elbo(vae, x_train[batch], spec.beta)
            if not torch.isfinite(loss):
                raise InputError(
                    f"vae: the loss is {loss.item()} in epoch {epoch}. Lower vae.presets' "
                    "learning_rate."
                )
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
            losses.append(loss.item())
        vae.eval()
        with torch.no_grad():
            heldout = negative_elbo(vae, x_heldout, spec.beta).item()
            jaccard = micro_jaccard(x_heldout, _reconstruct(vae, x_heldout))
        curve.append(
            {
                "epoch": epoch,
                "train_loss": float(np.mean(losses)),
                "heldout_loss": heldout,
                "heldout_jaccard": jaccard,
            }
        )
    return vae, curve


def _fit_prior(vae: BetaVAE, x: torch.Tensor, sampling: Sampling, seed: int) -> dict:
    """Return the prior as a mixture of K Gaussians with diagonal covariance.

    'aggregate' fits it to one draw of q(z|x) for every training row: sampling from it stays where
    the decoder was trained. 'normal' is the paper's N(0, I), a mixture of one.
    """
    if sampling.prior == "normal":
        z_dim = vae.mean.out_features
        weights, means, stds = torch.ones(1), torch.zeros(1, z_dim), torch.ones(1, z_dim)
    else:
        with torch.no_grad():
            mean, log_variance = vae.encode(x)
            z = (mean + torch.randn_like(mean) * (0.5 * log_variance).exp()).numpy()
        mixture = GaussianMixture(
            min(sampling.prior_components, len(z)),
            covariance_type="diag",
            reg_covar=1e-4,
            random_state=item_seed(seed, "fit_vae", "prior") % 2**32,
        ).fit(z)
        weights = torch.from_numpy(mixture.weights_).float()
        means = torch.from_numpy(mixture.means_).float()
        stds = torch.from_numpy(mixture.covariances_).sqrt().float()
    return {"prior.weights": weights, "prior.means": means, "prior.stds": stds}


def sample_prior(vae: BetaVAE, prior: dict, rngs: list[np.random.Generator]) -> np.ndarray:
    """Return one Bernoulli sample of the decoder for each generator: bool [N, D].

    z comes from the mixture, then each tag is drawn with its own probability: both randomnesses
    come from the item's generator.
    """
    cumulative = prior["prior.weights"].double().cumsum(0).numpy()
    z_dim, n_tags = vae.mean.out_features, vae.decoder[-1].out_features
    component = [
        min(int(np.searchsorted(cumulative, rng.random())), len(cumulative) - 1) for rng in rngs
    ]
    noise = torch.from_numpy(np.stack([rng.standard_normal(z_dim) for rng in rngs])).float()
    z = prior["prior.means"][component] + prior["prior.stds"][component] * noise
    with torch.no_grad():
        probability = vae.decoder(z).sigmoid().numpy()
    return np.stack([rng.random(n_tags) for rng in rngs]) < probability


def micro_jaccard(a: torch.Tensor, b: torch.Tensor) -> float:
    """Return sum |A and B| / sum |A or B| over rows of two multi-hot arrays [N, D]."""
    a, b = a.bool(), b.bool()
    return ((a & b).sum() / (a | b).sum().clamp(min=1)).item()


def cooccurrence_cosine(a: np.ndarray, b: np.ndarray) -> float:
    """Return the cosine of the off-diagonal parts of AᵀA and BᵀB of two multi-hot arrays [N, D]."""

    def off_diagonal(x):
        counts = x.astype(np.float64).T @ x.astype(np.float64)
        return counts[~np.eye(len(counts), dtype=bool)]

    u, v = off_diagonal(a), off_diagonal(b)
    norm = np.linalg.norm(u) * np.linalg.norm(v)
    return float(u @ v / norm) if norm > 0 else math.nan


def _reconstruct(vae: BetaVAE, x: torch.Tensor) -> torch.Tensor:
    return vae.decoder(vae.encode(x)[0]).sigmoid() > 0.5


def reconstruction_metrics(vae: BetaVAE, x: torch.Tensor, recipe: dict) -> list[MetricResult]:
    """Measure the reconstruction of held-out rows [N, D] from their posterior means."""
    with torch.no_grad():
        found = _reconstruct(vae, x)
    hamming, low, high = bootstrap_mean((found != x.bool()).float().mean(1))
    n = len(x)
    return [
        MetricResult("heldout_jaccard", micro_jaccard(x, found), None, None, n, "higher", recipe),
        MetricResult("heldout_hamming", hamming, low, high, n, "lower", recipe),
    ]


def prior_metrics(vae, prior, x_train, categories, sampling, seed, recipe) -> list[MetricResult]:
    """Measure samples of the prior, before any rejection, against the training rows."""
    rngs = [
        np.random.default_rng(item_seed(seed, "fit_vae", f"measure/{k}"))
        for k in range(N_PRIOR_SAMPLES)
    ]
    samples = sample_prior(vae, prior, rngs)
    real = x_train.numpy().astype(bool)
    sizes = np.cumsum([len(tags) for tags in categories.values()])[:-1]
    covered = sum(part.any(1).astype(int) for part in np.split(samples, sizes, axis=1))
    unique = {row.tobytes() for row in samples}
    known = {row.tobytes() for row in real}
    figures = [
        ("prior_cooccurrence_cosine", cooccurrence_cosine(samples, real), "higher"),
        ("prior_marginal_mae", np.abs(samples.mean(0) - real.mean(0)).mean(), "lower"),
        ("prior_enough_categories", (covered >= sampling.min_categories).mean(), "higher"),
        ("prior_unique", len(unique) / len(samples), "higher"),
        ("prior_novel", len(unique - known) / len(unique), "none"),
        ("prior_tags_per_set", samples.sum(1).mean(), "none"),
        ("data_tags_per_set", real.sum(1).mean(), "none"),
    ]
    return [
        MetricResult(name, float(value), None, None, N_PRIOR_SAMPLES, direction, recipe)
        for name, value, direction in figures
    ]
