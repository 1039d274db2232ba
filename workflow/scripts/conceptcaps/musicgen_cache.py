"""Keys and values of the steps so far, or of the texts, and what one query a row hears of them."""

import torch
import torch.nn.functional as F

from conceptcaps import hugepages

BLOCK = 16  # positions; a multiple of what a vector register holds


class Whole:
    """For a GPU: keys and values [2, R, H, N, d] of R rows, H heads and N positions of width d."""

    def __init__(self, rows: int, heads: int, positions: int, depth: int, *, dtype, device="cpu"):
        """Make room, all zeros."""
        self.pair = torch.zeros(2, rows, heads, positions, depth, dtype=dtype, device=device)

    def fill(self, pairs: torch.Tensor) -> None:
        """Note all positions: pairs [R, N, 2, H, d] of keys and values."""
        self.pair.copy_(pairs.permute(2, 0, 3, 1, 4))

    def note(self, at: torch.Tensor, pairs: torch.Tensor) -> None:
        """Note one position, a tensor [1]: pairs [R, 2, H, d]."""
        self.pair.index_copy_(3, at, pairs.transpose(0, 1)[:, :, :, None].to(self.pair.dtype))

    def attend(self, q: torch.Tensor, reach: int, mask: torch.Tensor) -> torch.Tensor:
        """Return what queries [R, H, d] hear of the first positions, [R, H * d].

        Args:
            q: queries, scaled.
            reach: positions that are read.
            mask: [R or 1, reach], added to the scores: zero, or -inf for what must not be heard.
        """
        keys, values = self.pair[:, :, :, :reach].to(q.dtype)
        heard = F.scaled_dot_product_attention(
            q[:, :, None], keys, values, attn_mask=mask[:, None, None], scale=1.0
        )
        return heard.flatten(1)


class Blocks:
    """The same for a CPU, in blocks of positions: [2, n, R, H, BLOCK, d].

    What is read is one stretch of memory; with gaps between the heads a cache that the processor's
    own cannot hold is read at a third of the speed. A product of one block has the same shape in
    any batch and beside texts of any length, and what is masked adds zeros at the end: a row's
    result does not depend on the others, bit by bit.
    """

    def __init__(self, rows: int, heads: int, positions: int, depth: int, *, dtype):
        """Make room for whole blocks, all zeros."""
        blocks = -(-positions // BLOCK)
        self.pair = hugepages.zeros(2, blocks, rows, heads, BLOCK, depth, dtype=dtype)
        self._places = self.pair.permute(1, 4, 0, 2, 3, 5)  # (n, BLOCK, 2, R, H, d)
        flat = self.pair.flatten(1, 3)
        self._first = [  # what is read of 1, 2, ... blocks: keys [n * R * H, d, BLOCK] and values
            (flat[0, :pairs].transpose(1, 2), flat[1, :pairs])
            for pairs in range(rows * heads, flat.shape[1] + 1, rows * heads)
        ]

    def fill(self, pairs: torch.Tensor) -> None:
        """Note all positions: pairs [R, N, 2, H, d]; N is a multiple of BLOCK."""
        self.pair.copy_(pairs.unflatten(1, (-1, BLOCK)).permute(3, 1, 0, 4, 2, 5))

    def note(self, at: int, pairs: torch.Tensor) -> None:
        """Note one position: pairs [R, 2, H, d]."""
        block, row = divmod(at, BLOCK)
        self._places[block, row].copy_(pairs.transpose(0, 1))

    def attend(self, q: torch.Tensor, reach: int, mask: torch.Tensor) -> torch.Tensor:
        """As of `Whole`, but the mask covers whole blocks: [R or 1, n * BLOCK]."""
        blocks, (rows, heads, depth) = -(-reach // BLOCK), q.shape
        keys, values = self._first[blocks - 1]
        if keys.dtype != q.dtype:
            keys, values = keys.to(q.dtype), values.to(q.dtype)
        q = q.expand(blocks, rows, heads, depth).reshape(-1, 1, depth)
        scores = torch.bmm(q, keys).view(blocks, -1, BLOCK).transpose(0, 1)
        scores = scores.reshape(rows, heads, blocks * BLOCK).add_(mask[:, None])
        weights = scores.softmax(-1).view(-1, blocks, BLOCK).transpose(0, 1)
        heard = torch.bmm(weights.reshape(-1, 1, BLOCK), values)  # (n * R * H, 1, d)
        return heard.view(blocks, rows, -1).sum(0)
