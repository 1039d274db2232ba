"""Random draws that are a function of a key and a counter: the same in any batch, on any device.

**Source:** Salmon et al. 2011, "Parallel random numbers: as easy as 1, 2, 3" (SC11): Philox4x32-10.
"""

from dataclasses import dataclass

import numpy as np
import torch

_MULTIPLIERS = np.uint64(0xD2511F53), np.uint64(0xCD9E8D57)
_WEYL = np.uint64(0x9E3779B9), np.uint64(0xBB67AE85)
_LOW, _BITS = np.uint64(0xFFFFFFFF), np.uint64(32)


@dataclass(frozen=True)
class Sampling:
    """How tokens are drawn from logits."""

    guidance_scale: float = 1.0  # >= 1; 1 is no classifier-free guidance
    temperature: float = 1.0  # >= 0; 0 is greedy
    top_k: int = 0  # most probable tokens kept; 0 keeps all
    top_p: float = 1.0  # smallest set with this probability mass, in (0, 1]


def philox4x32(counter: tuple, key: tuple) -> tuple[np.ndarray, ...]:
    """Return four 32-bit words (as uint64 arrays) for a counter of four words, a key of two.

    All words are uint64 arrays with values below 2**32; they broadcast.
    """
    c0, c1, c2, c3 = counter
    k0, k1 = key
    for _ in range(10):
        p0, p1 = _MULTIPLIERS[0] * c0, _MULTIPLIERS[1] * c2
        c0, c1, c2, c3 = (p1 >> _BITS) ^ c1 ^ k0, p1 & _LOW, (p0 >> _BITS) ^ c3 ^ k1, p0 & _LOW
        k0, k1 = (k0 + _WEYL[0]) & _LOW, (k1 + _WEYL[1]) & _LOW
    return c0, c1, c2, c3


def uniforms(seeds: list[int], *, steps: int, rows: int) -> np.ndarray:
    """Return uniforms in [0, 1), [steps, B, rows] float64, multiples of 2**-32.

    The number of seed s at step t and row r is that of key s and counter (t, r, 0, 0): it does not
    depend on the other seeds, nor on how many steps are asked for. Seeds are below 2**64.
    """
    seeds = np.array(seeds, dtype=np.uint64)[None, :, None]
    zero = np.uint64(0)
    step = np.arange(steps, dtype=np.uint64)[:, None, None]
    row = np.arange(rows, dtype=np.uint64)[None, None, :]
    word = philox4x32((step, row, zero, zero), (seeds & _LOW, seeds >> _BITS))[0]
    return word * 2.0**-32


def draw_tokens(
    logits: torch.Tensor, uniform: torch.Tensor, sampling: Sampling
) -> tuple[torch.Tensor, torch.Tensor]:
    """Draw one token per row of logits [N, V] float32; return tokens [N] and finite [N].

    The token is where the cumulated softmax passes `uniform` [N], float64 in [0, 1). As in
    transformers, temperature comes first, then top-k (ties with the k-th stay), then top-p.
    """
    if sampling.temperature == 0:
        best, tokens = logits.max(dim=-1)
        return tokens, best.isfinite()
    scores = logits if sampling.temperature == 1 else logits / sampling.temperature
    size = scores.shape[-1]
    weights = scores.softmax(dim=-1)
    if 0 < sampling.top_k < size:
        weights = weights * (scores >= _least_of_top(scores, sampling.top_k))
    if sampling.top_p < 1:
        ordered, order = weights.sort(dim=-1)
        mass = ordered.cumsum(dim=-1)
        drop = mass <= (1 - sampling.top_p) * mass[:, -1:]
        drop[:, -1] = False
        weights = weights.masked_fill(drop.scatter(-1, order, drop), 0)
    cumulated = weights.cumsum(dim=-1, dtype=torch.float64)
    total = cumulated[:, -1:]
    tokens = torch.searchsorted(cumulated, uniform[:, None] * total, right=True)[:, 0]
    return tokens.clamp_(max=size - 1), total[:, 0] == total[:, 0]  # NaN is not itself


def _least_of_top(scores: torch.Tensor, k: int) -> torch.Tensor:
    """Return the k-th largest value of each row, [N, 1]."""
    at = scores.shape[-1] - k
    if scores.is_cuda:
        return scores.kthvalue(at + 1, dim=-1, keepdim=True).values
    return torch.from_numpy(np.partition(scores.numpy(), at, axis=-1)[:, at, None])
