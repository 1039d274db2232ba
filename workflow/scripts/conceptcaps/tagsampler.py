"""Draws of tag sets from the fitted VAE, free or conditional on tags given or forbidden."""

import numpy as np
import torch
from torch.nn.functional import logsigmoid

from conceptcaps.constraints import FINE, Constraints

POOL = 128  # values of z that one conditional draw chooses from
FLOOR = 0.02  # share of the proposal that ignores the condition, so that no component is lost
NOTHING = np.array([], dtype=int)


class Sampler:
    """Draw z from the prior, then every tag with its own probability given z.

    Every draw depends on its own generator alone.

    Args:
        vae: the fitted model (`vae.load`).
        prior: tensors of the mixture (`vae.prior_of`).
        temperature: tags are drawn from p(x|z)^(1/T), normalised: 1 samples the model, less
            sharpens what z leaves open, and 0 takes each z's most probable set.
    """

    def __init__(self, vae, prior: dict, *, temperature: float = 1.0):
        """Keep the model; see the class for the arguments."""
        self.vae, self.temperature = vae, temperature
        self.means, self.stds = prior["prior.means"], prior["prior.stds"]
        self._proposals = {}

    def sample(
        self, rngs: list[np.random.Generator], *, given=NOTHING, forbid=NOTHING
    ) -> np.ndarray:
        """Return one set for each generator, bool [N, D], from p(x | given, not forbidden).

        `given` and `forbid` are columns (`Constraints.columns`).
        """
        z = self.latents(rngs, given=given, forbid=forbid)
        return self.decode(z, rngs, given=given, forbid=forbid)

    def sample_coherent(
        self, rngs: list[np.random.Generator], constraints: Constraints, *, given=(), draws: int
    ) -> tuple[np.ndarray, np.ndarray]:
        """Return sets, bool [N, D], and the verdict on the first draw of each, [N].

        The tags are drawn again from the same z, `draws` times at most, while the set breaks a
        constraint: rejecting z as well would thin out the sets that are hard to draw.
        """
        given = constraints.columns(constraints.closed(given) | constraints.given)
        forbid = constraints.columns(constraints.forbid)
        z = self.latents(rngs, given=given, forbid=forbid)
        x = self.decode(z, rngs, given=given, forbid=forbid)
        first = constraints.verdict(x)
        broken = np.flatnonzero(first != FINE)
        for _ in range(draws - 1):
            if not len(broken):
                break
            again = [rngs[n] for n in broken]
            x[broken] = self.decode(z[broken], again, given=given, forbid=forbid)
            broken = broken[constraints.verdict(x[broken]) != FINE]
        return x, first

    @torch.no_grad()
    def latents(
        self, rngs: list[np.random.Generator], *, given=NOTHING, forbid=NOTHING
    ) -> torch.Tensor:
        """Return z [N, Z] from p(z | given, not forbidden).

        With a condition, each draw takes one of `POOL` values by sampling-importance-resampling:
        components are proposed by how well their mean explains the condition, and each z is
        weighted with p(condition | z) p(z) / proposal(z).
        """
        if not len(given) and not len(forbid):
            return self._around(np.array([rng.integers(len(self.means)) for rng in rngs]), rngs)
        proposal = self._proposal(given, forbid)
        chosen = np.concatenate([rng.choice(len(proposal), POOL, p=proposal) for rng in rngs])
        z = self._around(chosen, rngs, each=POOL)
        log_weight = self._log_condition(z, given, forbid).double().numpy()
        log_weight = (log_weight - np.log(proposal[chosen])).reshape(len(rngs), POOL)
        weight = np.exp(log_weight - log_weight.max(1, keepdims=True))
        cumulative = (weight / weight.sum(1, keepdims=True)).cumsum(1)
        uniform = np.array([rng.random() for rng in rngs])
        taken = np.minimum((cumulative < uniform[:, None]).sum(1), POOL - 1)
        return z[torch.from_numpy(taken + POOL * np.arange(len(rngs)))]

    @torch.no_grad()
    def decode(
        self, z: torch.Tensor, rngs: list[np.random.Generator], *, given=NOTHING, forbid=NOTHING
    ) -> np.ndarray:
        """Return sets of z [N, Z], bool [N, D]; given tags are in them, forbidden ones are not."""
        logits = self.vae.decoder(z)
        uniform = np.stack([rng.random(logits.shape[1]) for rng in rngs])
        if self.temperature == 0:
            x = (logits > 0).numpy()
        else:
            x = uniform < (logits / self.temperature).sigmoid().numpy()
        x[:, given], x[:, forbid] = True, False  # exact: tags are independent given z
        return x

    def _around(self, component: np.ndarray, rngs, each: int = 1) -> torch.Tensor:
        noise = np.concatenate([rng.standard_normal((each, self.means.shape[1])) for rng in rngs])
        return self.means[component] + self.stds[component] * torch.from_numpy(noise).float()

    def _log_condition(self, z: torch.Tensor, given, forbid) -> torch.Tensor:
        """Return ln p(given tags on, forbidden ones off | z [N, Z]) in nats: [N]."""
        logits = self.vae.decoder(z) / max(self.temperature, 1e-3)
        return logsigmoid(logits[:, given]).sum(1) + logsigmoid(-logits[:, forbid]).sum(1)

    def _proposal(self, given, forbid) -> np.ndarray:
        key = (tuple(given), tuple(forbid))
        if key not in self._proposals:
            log_fit = self._log_condition(self.means, given, forbid).double().numpy()
            fit = np.exp(log_fit - log_fit.max())
            even = 1 / len(fit)
            self._proposals[key] = (1 - FLOOR) * fit / fit.sum() + FLOOR * even
        return self._proposals[key]
