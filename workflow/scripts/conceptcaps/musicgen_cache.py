"""Keys and values of the steps so far, or of the texts, and what one query a row hears of them.

All know R rows and H heads of width d. A mask says which positions are not heard; as many are read
as it has.
"""

import torch
import torch.nn.functional as F

from conceptcaps import hugepages

_BLOCK = 16  # positions; a multiple of what a vector register holds
_LEAST = 400  # torch: products of fewer multiplications take another kernel, and sum in its order


def room(positions: int, depth: int) -> int:
    """Return the positions that a CPU reads, of width d, where so many are noted."""
    blocks = max(-(-positions // _BLOCK), -(-_LEAST // (depth * _BLOCK)))
    return blocks * _BLOCK


class Whole:
    """For a GPU, of steps or texts: keys and values [2, R, H, N, d] of up to N positions."""

    def __init__(self, rows: int, heads: int, positions: int, depth: int, *, dtype, device="cpu"):
        """Make room, all zeros."""
        self.pair = torch.zeros(2, rows, heads, positions, depth, dtype=dtype, device=device)

    def clear(self) -> None:
        """Forget all: what is masked is multiplied by zero, and must not be an old NaN."""
        self.pair.zero_()

    def fill(self, pairs: torch.Tensor) -> None:
        """Note all positions: pairs [R, N, 2, H, d] of keys and values."""
        self.pair.copy_(pairs.permute(2, 0, 3, 1, 4))

    def note(self, at: torch.Tensor, pairs: torch.Tensor) -> None:
        """Note one position, a tensor [1]: pairs [R, 2, H, d]."""
        self.pair.index_copy_(3, at, pairs.transpose(0, 1)[:, :, :, None].to(self.pair.dtype))

    def mask(self, silent: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
        """Return the mask for `attend` where silent [R or 1, n] bool is true."""
        return _mask(silent, dtype)[:, None, None]

    def attend(self, q: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        """Return what queries [R, H, d] hear of the first n positions, [R, H * d]."""
        keys, values = self.pair[:, :, :, : mask.shape[-1]].to(q.dtype)
        return F.scaled_dot_product_attention(q[:, :, None], keys, values, mask).flatten(1)


class Dense:
    """For a CPU, of texts: keys [R * H, d, N] and values [R * H, N, d], N as `room` says.

    What is read is one stretch of memory; with gaps between the heads a cache that the processor's
    own cannot hold is read at a third of the speed. A longer text in the batch only adds zeros at
    the end: a row's result does not depend on the others, bit by bit.
    """

    def __init__(self, rows: int, heads: int, positions: int, depth: int, *, dtype):
        """Make room, all zeros."""
        self.heads = heads
        pair = hugepages.zeros(2, rows * heads * positions * depth, dtype=dtype)
        self.keys = pair[0].view(-1, depth, positions)
        self.values = pair[1].view(-1, positions, depth)

    def fill(self, pairs: torch.Tensor) -> None:
        """As of `Whole`."""
        keys, values = pairs.unbind(2)
        self.keys.unflatten(0, (-1, self.heads)).copy_(keys.permute(0, 2, 3, 1))
        self.values.unflatten(0, (-1, self.heads)).copy_(values.transpose(1, 2))

    def mask(self, silent: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
        """As of `Whole`."""
        mask = _mask(silent, dtype)[:, None]
        return mask if len(mask) == 1 else mask.repeat_interleave(self.heads, dim=0)

    def attend(self, q: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        """As of `Whole`, but the mask covers all positions that there are."""
        keys, values = self.keys, self.values
        if keys.dtype != q.dtype:
            keys, values = keys.to(q.dtype), values.to(q.dtype)
        rows, _, depth = q.shape
        scores = torch.baddbmm(mask, q.reshape(-1, 1, depth), keys, alpha=depth**-0.5)
        return torch.bmm(scores.softmax(-1), values).view(rows, -1)


class Growing(Dense):
    """For a CPU, of steps: dense as well, hence laid out again when more are needed."""

    def __init__(self, rows: int, heads: int, depth: int, *, spare: list[torch.Tensor]):
        """Take one stretch of the spare memory; one more must stay, to grow into."""
        self.rows, self.heads, self.depth = rows, heads, depth
        self.memory, self.spare = spare.pop(), spare
        self.clear()

    def clear(self) -> None:
        """As of `Whole`."""
        self._lay(room(1, self.depth))
        self.pair.zero_()

    def note(self, at: int, pairs: torch.Tensor) -> None:
        """Note the next position: pairs [R, 2, H, d]."""
        if at == self.pair.shape[2]:
            old = self.pair
            self.spare.append(self.memory)
            self.memory = self.spare.pop(0)
            self._lay(room(at + 1, self.depth))
            self.pair[:, :, :at] = old
            self.pair[:, :, at:] = 0
        self._places[at].copy_(pairs)

    def _lay(self, positions: int) -> None:
        shape = 2, self.rows * self.heads, positions, self.depth
        self.pair = self.memory[: torch.Size(shape).numel()].view(shape)
        self.keys, self.values = self.pair[0].transpose(1, 2), self.pair[1]
        by_row = self.pair.view(2, self.rows, self.heads, positions, self.depth)
        self._places = by_row.permute(3, 1, 0, 2, 4)  # (n, R, 2, H, d)


def growing(rows: list[int], heads: int, positions: int, depth: int, *, dtype) -> list[Growing]:
    """Return one cache per layer, of up to so many positions, with so many rows."""
    size = 2 * max(rows) * heads * room(positions, depth) * depth
    spare = list(hugepages.zeros(len(rows) + 1, size, dtype=dtype))
    return [Growing(of_layer, heads, depth, spare=spare) for of_layer in rows]


def _mask(silent: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
    return torch.zeros(silent.shape, dtype=dtype, device=silent.device).masked_fill_(
        silent, -torch.inf
    )
