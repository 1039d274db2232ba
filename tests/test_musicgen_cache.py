"""The two caches hear the same; what is masked changes no bit; huge pages are ordinary memory."""

import gc

import pytest
import torch

from conceptcaps import hugepages
from conceptcaps.musicgen_cache import BLOCK, Blocks, Whole

ROWS, HEADS, DEPTH = 3, 2, 8


def pairs(positions: int, seed: int = 0) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(ROWS, positions, 2, HEADS, DEPTH, generator=generator)


def query() -> torch.Tensor:
    return torch.randn(ROWS, HEADS, DEPTH, generator=torch.Generator().manual_seed(9))


def heard_by_hand(noted: torch.Tensor, silent: torch.Tensor) -> torch.Tensor:
    """Attention written out in float64: noted [R, N, 2, H, d], silent [R, N] bool."""
    keys, values = noted.double().unbind(2)
    scores = torch.einsum("rhd,rnhd->rhn", query().double(), keys)
    weights = scores.masked_fill(silent[:, None], -torch.inf).softmax(-1)
    return torch.einsum("rhn,rnhd->rhd", weights, values).flatten(1).float()


def future(kind, reach: int) -> torch.Tensor:
    mask = torch.zeros(1, reach if kind is Whole else -(-reach // BLOCK) * BLOCK)
    mask[:, reach:] = -torch.inf
    return mask


@pytest.mark.parametrize("kind", [Whole, Blocks])
def test_steps_are_heard_up_to_the_last_one_noted(kind):
    noted = pairs(40)
    cache = kind(ROWS, HEADS, 40, DEPTH, dtype=torch.float32)
    for at in range(40):
        place = torch.tensor([at]) if kind is Whole else at
        cache.note(place, noted[:, at])
        if at + 1 in (1, 2, 15, 16, 17, 32, 33, 40):
            expected = heard_by_hand(noted[:, : at + 1], torch.zeros(ROWS, at + 1).bool())
            torch.testing.assert_close(
                cache.attend(query(), at + 1, future(kind, at + 1)), expected
            )


@pytest.mark.parametrize("kind", [Whole, Blocks])
def test_texts_are_heard_up_to_their_ends(kind):
    noted, lengths = pairs(48), torch.tensor([5, 48, 17])
    cache = kind(ROWS, HEADS, 48, DEPTH, dtype=torch.float32)
    cache.fill(noted)
    silent = torch.arange(48) >= lengths[:, None]
    mask = torch.zeros(ROWS, 48).masked_fill_(silent, -torch.inf)
    expected = heard_by_hand(noted, silent)
    torch.testing.assert_close(cache.attend(query(), 48, mask), expected)


@pytest.mark.parametrize("positions", [32, 48, 160])
def test_a_longer_neighbour_changes_no_bit(positions):
    """A text of 16 positions, alone and padded to the length of another."""
    noted = pairs(positions)
    noted[:, BLOCK:] = 0
    short = Blocks(ROWS, HEADS, BLOCK, DEPTH, dtype=torch.float32)
    long = Blocks(ROWS, HEADS, positions, DEPTH, dtype=torch.float32)
    short.fill(noted[:, :BLOCK])
    long.fill(noted)
    mask = torch.zeros(ROWS, positions)
    mask[:, 11:] = -torch.inf
    alone = short.attend(query(), BLOCK, mask[:, :BLOCK])
    assert torch.equal(long.attend(query(), positions, mask), alone)


def test_a_coarser_cache_is_read_in_the_precision_of_the_query():
    noted = pairs(BLOCK)
    cache = Blocks(ROWS, HEADS, BLOCK, DEPTH, dtype=torch.float8_e4m3fn)
    cache.fill(noted)
    heard = cache.attend(query(), BLOCK, torch.zeros(1, BLOCK))
    expected = heard_by_hand(noted.to(torch.float8_e4m3fn), torch.zeros(ROWS, BLOCK).bool())
    torch.testing.assert_close(heard, expected)


def test_memory_on_huge_pages_is_zero_aligned_and_stays_as_long_as_a_view():
    view = hugepages.zeros(3, 5, dtype=torch.float32)[1:]
    gc.collect()
    assert view.data_ptr() % 2**21 == 5 * 4
    assert torch.equal(view, torch.zeros(2, 5))
    view += 1
    assert view.sum() == 10


def test_gathered_tensors_are_contiguous_neighbours():
    tensors = [torch.randn(4, 3).t(), torch.randn(2, 5)]
    first, second = hugepages.gather(tensors)
    assert torch.equal(first, tensors[0])
    assert torch.equal(second, tensors[1])
    assert first.is_contiguous()
    assert second.data_ptr() == first.data_ptr() + first.nbytes
