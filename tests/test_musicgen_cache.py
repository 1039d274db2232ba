"""The caches hear the same; what is masked changes no bit; huge pages are ordinary memory."""

import gc

import pytest
import torch

from conceptcaps import hugepages
from conceptcaps.musicgen_cache import Dense, Whole, growing, room

ROWS, HEADS, DEPTH = 3, 2, 8


def pairs(positions: int, seed: int = 0) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(ROWS, positions, 2, HEADS, DEPTH, generator=generator)


def query() -> torch.Tensor:
    return torch.randn(ROWS, HEADS, DEPTH, generator=torch.Generator().manual_seed(9))


def heard_by_hand(noted: torch.Tensor, silent: torch.Tensor) -> torch.Tensor:
    """Attention written out in float64: noted [R, N, 2, H, d], silent [R, N] bool."""
    keys, values = noted.double().unbind(2)
    scores = torch.einsum("rhd,rnhd->rhn", query().double(), keys) / DEPTH**0.5
    weights = scores.masked_fill(silent[:, None], -torch.inf).softmax(-1)
    return torch.einsum("rhn,rnhd->rhd", weights, values).flatten(1).float()


def heard(cache, silent: torch.Tensor) -> torch.Tensor:
    return cache.attend(query(), cache.mask(silent, torch.float32))


@pytest.mark.parametrize("kind", ["whole", "growing"])
def test_steps_are_heard_up_to_the_last_one_noted(kind):
    noted = pairs(40)
    if kind == "whole":
        layers = [Whole(ROWS, HEADS, 40, DEPTH, dtype=torch.float32) for _ in range(2)]
    else:
        layers = growing([ROWS, ROWS], HEADS, 40, DEPTH, dtype=torch.float32)
    for at in range(40):
        place, reach = (torch.tensor([at]), 40) if kind == "whole" else (at, room(at + 1, DEPTH))
        for sign, cache in zip((1, -1), layers, strict=True):
            cache.note(place, sign * noted[:, at])
        silent = torch.zeros(ROWS, at + 1).bool()
        later = torch.arange(reach)[None] > at
        for sign, cache in zip((1, -1), layers, strict=True):
            expected = heard_by_hand(sign * noted[:, : at + 1], silent)
            torch.testing.assert_close(heard(cache, later), expected)


def test_layers_grow_into_each_others_memory_and_keep_their_own():
    """The first layer has fewer rows: half a batch, until it hears the text."""
    layers = growing([1, ROWS, ROWS], HEADS, 50, DEPTH, dtype=torch.float32)
    for at in range(50):
        for i, cache in enumerate(layers):
            cache.note(at, torch.full((cache.rows, 2, HEADS, DEPTH), 100.0 * i + at))
    for i, cache in enumerate(layers):
        assert cache.pair.shape == (2, cache.rows * HEADS, 64, DEPTH)
        expected = 100.0 * i + torch.arange(50.0)
        assert torch.equal(
            cache.pair[:, :, :50], expected[:, None].expand_as(cache.pair[:, :, :50])
        )
        assert not cache.pair[:, :, 50:].any()
    assert len({cache.memory.data_ptr() for cache in layers}) == 3


@pytest.mark.parametrize("kind", [Whole, Dense])
def test_texts_are_heard_up_to_their_ends(kind):
    noted, lengths = pairs(48), torch.tensor([5, 48, 17])
    cache = kind(ROWS, HEADS, 48, DEPTH, dtype=torch.float32)
    cache.fill(noted)
    silent = torch.arange(48) >= lengths[:, None]
    torch.testing.assert_close(heard(cache, silent), heard_by_hand(noted, silent))


@pytest.mark.parametrize("depth", [4, 8, 16, 32, 64])
@pytest.mark.parametrize("length", [11, 27])
def test_a_longer_neighbour_changes_no_bit(length, depth):
    """A text alone, and padded to the length of another."""
    generator = torch.Generator().manual_seed(depth)
    noted = torch.randn(ROWS, 512, 2, HEADS, depth, generator=generator)
    noted[:, length:] = 0
    q = torch.randn(ROWS, HEADS, depth, generator=generator)
    heard = []
    for longest in (length, 40, 64, 70, 160, 500):
        positions = room(longest, depth)
        cache = Dense(ROWS, HEADS, positions, depth, dtype=torch.float32)
        cache.fill(noted[:, :positions])
        silent = (torch.arange(positions) >= length).expand(ROWS, -1)
        heard.append(cache.attend(q, cache.mask(silent, torch.float32)))
    assert all(torch.equal(other, heard[0]) for other in heard)


def test_a_coarser_cache_is_read_in_the_precision_of_the_query():
    noted = pairs(16)
    (cache,) = growing([ROWS], HEADS, 16, DEPTH, dtype=torch.float8_e4m3fn)
    for at in range(16):
        cache.note(at, noted[:, at])
    expected = heard_by_hand(noted.to(torch.float8_e4m3fn), torch.zeros(ROWS, 16).bool())
    later = torch.arange(room(16, DEPTH))[None] > 15
    torch.testing.assert_close(heard(cache, later), expected)


def test_memory_on_huge_pages_is_zero_aligned_and_stays_as_long_as_a_view():
    view = hugepages.zeros(3, 5, dtype=torch.float32)[1:]
    gc.collect()
    assert view.data_ptr() % 2**21 == 5 * 4
    assert torch.equal(view, torch.zeros(2, 5))
    view += 1
    assert view.sum() == 10
