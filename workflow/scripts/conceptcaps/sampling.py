"""Token sampling whose randomness belongs to the item, not to the batch it happens to be in."""

import math

import numpy as np
import torch
from transformers import LogitsProcessor


class ItemSampler(LogitsProcessor):
    """Turn `generate(do_sample=False)` into exact sampling with one random stream per item.

    Adding Gumbel noise to log-probabilities and taking the argmax draws from the softmax (the
    Gumbel-max trick). The noise of row r at step t comes from Philox(key=seed_r, counter=t), so a
    token depends on the item's seed and step only. Append it last, behind guidance.

    Args:
        seeds: one item seed per sequence, [B].
        rows_per_item: logit rows per sequence (4 codebooks for MusicGen, 1 for text), item-major.
        temperature: > 0; 0 means greedy.
        top_k: keep the k most probable tokens; 0 keeps all.
        top_p: keep the smallest set with this probability mass, in (0, 1].
    """

    def __init__(self, seeds, *, rows_per_item=1, temperature=1.0, top_k=0, top_p=1.0):
        """Start at step 0; see the class for the arguments."""
        self.seeds = [int(seed) for seed in seeds]
        self.rows_per_item = rows_per_item
        self.temperature, self.top_k, self.top_p = temperature, top_k, top_p
        self.step = 0

    def __call__(self, input_ids: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
        """Return perturbed scores [B * rows_per_item, V] whose argmax is the sampled token."""
        if self.temperature == 0:
            return scores
        scores = scores.float() / self.temperature
        if 0 < self.top_k < scores.shape[-1]:
            lowest = scores.topk(self.top_k, dim=-1).values[:, -1:]
            scores = scores.masked_fill(scores < lowest, -torch.inf)
        return self._nucleus(scores) + self._gumbel(scores.shape[-1]).to(scores.device)

    def _nucleus(self, scores: torch.Tensor, ranked=None) -> torch.Tensor:
        if self.top_p < 1:
            ordered, order = ranked or scores.sort(dim=-1, descending=True)
            mass_before = ordered.softmax(-1).cumsum(-1) - ordered.softmax(-1)
            drop = (mass_before >= self.top_p).scatter(-1, order, mass_before >= self.top_p)
            scores = scores.masked_fill(drop, -torch.inf)
        return scores

    def _gumbel(self, vocabulary: int) -> torch.Tensor:
        shape = (self.rows_per_item, vocabulary)
        uniform = np.stack(
            [
                np.random.Generator(
                    np.random.Philox(key=seed, counter=[0, 0, 0, self.step])
                ).random(shape)
                for seed in self.seeds
            ]
        )
        self.step += 1
        noise = -np.log(-np.log(np.clip(uniform, 1e-300, 1 - 1e-16)))  # (B, rows, V)
        return torch.from_numpy(noise.reshape(-1, vocabulary)).float()


class ExactSampler(ItemSampler):
    """The same draw, whatever the batch: near-ties are decided by the item's own logits.

    Padding and batch size move a logit in its last bits, which may turn a draw where two tokens are
    nearly equal. Such a draw, or one at the edge of the nucleus, is decided by logits that the
    model computes for the item alone. So every token is the one that generation one by one draws,
    as long as a batch moves no logit by more than half the tolerance.

    Args:
        seeds: one item seed per sequence, [B].
        alone: (row, its token ids) -> logits [V] computed for the item alone, or None when it has
            ended.
        temperature: > 0; 0 means greedy.
        top_p: as in `ItemSampler`.
        tolerance: what counts as near, in logits after the temperature.
    """

    def __init__(self, seeds, *, alone, temperature, top_p, tolerance=1e-3):
        """Start at step 0; see the class for the arguments."""
        super().__init__(seeds, temperature=temperature, top_p=top_p)
        self.alone, self.tolerance = alone, tolerance

    def __call__(self, input_ids: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
        """Return perturbed scores [B, V]; rows with a near-tie are computed again, alone."""
        noise = torch.zeros_like(scores, dtype=torch.float32)
        if self.temperature > 0:
            noise = self._gumbel(scores.shape[-1]).to(scores.device)
        heated = scores.float() / (self.temperature or 1)
        ranked = heated.sort(dim=-1, descending=True)
        drawn = self._nucleus(heated, ranked) + noise
        for row in self._near(heated, noise, ranked.values).nonzero()[:, 0].tolist():
            own = self.alone(row, input_ids[row])
            if own is not None:
                own = own[None].float() / (self.temperature or 1)
                drawn[row] = (self._nucleus(own) + noise[row])[0]
        return drawn

    def _near(
        self, heated: torch.Tensor, noise: torch.Tensor, ordered: torch.Tensor
    ) -> torch.Tensor:
        """Return which rows [B] might be drawn otherwise by logits that differ a little."""
        mass = torch.nn.functional.pad(ordered.softmax(-1).cumsum(-1), (1, 0))[:, :-1]  # before
        top_p = self.top_p if self.top_p < 1 else math.inf
        widest = (mass < top_p + self.tolerance).sum(-1, keepdim=True)  # tokens; at least 1
        least = ordered.gather(-1, widest - 1) - self.tolerance
        best = (heated + noise).masked_fill(heated < least, -torch.inf).topk(2, dim=-1)
        near = best.values[:, 0] - best.values[:, 1] < self.tolerance
        drawn = heated.gather(-1, best.indices[:, :1])
        before = (ordered > drawn - self.tolerance).sum(-1, keepdim=True) - 1  # at most, besides it
        sure = mass.gather(-1, before) < top_p - self.tolerance
        return near | ~(sure | (drawn == ordered[:, :1]))[:, 0]
