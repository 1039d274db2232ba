"""The engine against transformers' generate: the same tokens, logits and distribution."""

import ast
import sys
from pathlib import Path

import numpy as np
import pytest
import tiny_models
import torch
from scipy.stats import chisquare
from transformers import (
    LogitsProcessorList,
    TemperatureLogitsWarper,
    TopKLogitsWarper,
    TopPLogitsWarper,
)

from conceptcaps.draws import Sampling, draw_tokens, philox4x32, uniforms
from conceptcaps.musicgen_cache import Whole, room
from conceptcaps.musicgen_engine import Engine

LENGTHS = (3, 21, 9, 40, 1, 16)  # tokens of the prompts: within and beyond a bucket
SHAPES = {
    "tiny": {},
    "medium": {"width": 192, "layers": 6, "heads": 6, "ffn": 768, "codes": 256},
    "stereo": {"channels": 2},
    "float16": {},  # its numbers, in float32, as published ones often are
}
SAMPLED = Sampling(guidance_scale=3.3, temperature=1.1, top_k=20)


@pytest.fixture(scope="module", params=SHAPES)
def model(request):
    torch.set_num_threads(1)
    model = tiny_models.random_musicgen(**SHAPES[request.param])
    if request.param == "float16":
        model.decoder.half().float()
    return model


@pytest.fixture(scope="module")
def tiny():
    torch.set_num_threads(1)
    return tiny_models.random_musicgen()


def prompts(lengths=LENGTHS):
    rng = np.random.default_rng(0)
    return [rng.integers(3, 300, n).tolist() for n in lengths]


def generate(model, texts, *, frames, guidance, **options):
    """Return the codes [B, K, frames] and the guided scores of each step by transformers."""
    width = max(map(len, texts))
    ids = torch.tensor([text + [0] * (width - len(text)) for text in texts])
    mask = torch.tensor([[1] * len(text) + [0] * (width - len(text)) for text in texts])
    decode, seen = model.audio_encoder.decode, []
    books, channels = model.config.decoder.num_codebooks, model.config.decoder.audio_channels

    def spy(codes, **rest):
        seen.append(codes[0])
        return decode(codes, **rest)

    model.audio_encoder.decode = spy
    try:
        result = model.generate(
            input_ids=ids, attention_mask=mask, guidance_scale=guidance, do_sample=False,
            max_new_tokens=frames + books // channels - 1, output_scores=True,
            return_dict_in_generate=True, **options,
        )  # fmt: skip
    finally:
        model.audio_encoder.decode = decode
    codes = seen[0] if channels == 1 else torch.stack(seen, dim=2).flatten(1, 2)
    return codes, result.scores


def scores_of(engine, texts, *, frames, sampling):
    """Compose, and note what the draws see at each step."""
    seen = []
    logits = engine._logits

    def spy(*args):
        out = logits(*args)
        seen.append(out.view(-1, engine.codebooks, engine.vocabulary).clone())
        return out

    engine._logits = spy
    try:
        codes, broken = engine.compose(texts, [0] * len(texts), frames=frames, sampling=sampling)
    finally:
        engine._logits = logits
    return codes, broken, seen


@pytest.mark.parametrize("guidance", [1.0, 3.3])
def test_greedy_tokens_and_logits_are_those_of_transformers(model, guidance):
    texts, frames = prompts(sorted(LENGTHS)), 40
    expected, scores = generate(model, texts, frames=frames, guidance=guidance)
    sampling = Sampling(guidance_scale=guidance, temperature=0)
    codes, broken, seen = scores_of(Engine(model), texts, frames=frames, sampling=sampling)
    assert codes.tolist() == expected.tolist()
    assert broken.tolist() == [-1] * len(texts)
    assert len(seen) == len(scores)
    for ours, theirs in zip(seen, scores, strict=True):
        torch.testing.assert_close(
            ours.reshape(theirs.shape), theirs, atol=1e-4 * max(1, guidance), rtol=1e-5
        )
    assert len(set(map(str, codes.tolist()))) == len(texts)  # texts make a difference


def test_greedy_tokens_to_the_last_position(tiny):
    texts, frames = prompts((7, 20)), 512 - 3
    expected, _ = generate(tiny, texts, frames=frames, guidance=3.3)
    sampling = Sampling(guidance_scale=3.3, temperature=0)
    codes, _ = Engine(tiny).compose(texts, [1, 2], frames=frames, sampling=sampling)
    assert codes.tolist() == expected.tolist()


def test_waves_are_those_of_transformers(tiny):
    codes = torch.randint(0, 32, (5, 4, 30), generator=torch.Generator().manual_seed(0))
    expected = tiny.audio_encoder.decode(codes[None], audio_scales=[None]).audio_values
    waves = Engine(tiny, codec_clips=2).decode(codes)
    torch.testing.assert_close(waves, expected, atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("threads", [1, 2])
def test_a_clip_is_bitwise_the_same_in_any_batch(model, threads):
    texts, seeds = prompts(), [11, 22, 33, 44, 55, 66]
    engine = Engine(model)
    torch.set_num_threads(threads)
    try:
        whole, _ = engine.compose(texts, seeds, frames=40, sampling=SAMPLED)
        for members in ([0], [4], [3, 1], [5, 4, 3, 2, 1, 0], [2, 2, 2, 2, 0, 1, 3, 4, 5, 5, 1]):
            some, _ = engine.compose(
                [texts[i] for i in members], [seeds[i] for i in members],
                frames=40, sampling=SAMPLED,
            )  # fmt: skip
            assert torch.equal(some, whole[members])
    finally:
        torch.set_num_threads(1)
    assert not torch.equal(
        engine.compose(texts, seeds[::-1], frames=40, sampling=SAMPLED)[0], whole
    )


@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize("clips", [5, 6, 66])
def test_logits_are_bitwise_the_same_at_any_place_of_a_batch(model, clips, threads):
    """Tokens hide a difference in the last bits until a draw falls on it: look at the logits."""
    engine, texts = Engine(model), prompts()
    torch.set_num_threads(threads)
    try:
        alone = [scores_of(engine, [text], frames=20, sampling=SAMPLED)[2] for text in texts]
        _, _, seen = scores_of(engine, (texts * 11)[:clips], frames=20, sampling=SAMPLED)
    finally:
        torch.set_num_threads(1)
    for step, rows in enumerate(seen):
        for i, row in enumerate(rows):
            assert torch.equal(row, alone[i % 6][step][0]), (step, i)


def test_a_shorter_clip_is_the_beginning_of_a_longer_one(tiny):
    engine = Engine(tiny)
    long, _ = engine.compose(prompts(), range(6), frames=40, sampling=SAMPLED)
    short, _ = engine.compose(prompts(), range(6), frames=25, sampling=SAMPLED)
    assert torch.equal(short[:, :, :22], long[:, :, :22])  # then the first books have ended


def test_cross_attention_without_text_adds_exactly_zero(model):
    """The null half's states are zeros, and no projection has a bias."""
    attention = model.decoder.model.decoder.layers[0].encoder_attn
    width = model.config.decoder.hidden_size
    query = torch.randn(4, 1, width)
    added, _ = attention(query, key_value_states=torch.zeros(4, 7, width))
    assert torch.equal(added, torch.zeros_like(added))
    projections = ("q_proj", "k_proj", "v_proj", "out_proj")
    for layer in model.decoder.model.decoder.layers:
        assert all(getattr(layer.encoder_attn, name).bias is None for name in projections)


def test_a_bias_is_refused(tiny):
    out = tiny.decoder.model.decoder.layers[1].encoder_attn.out_proj
    out.bias = torch.nn.Parameter(torch.ones(16))
    try:
        with pytest.raises(TypeError, match="has a bias"):
            Engine(tiny)
    finally:
        out.bias = None
    with pytest.raises(TypeError, match="T5EncoderModel is not a MusicGen"):
        Engine(tiny.text_encoder)


def test_broken_logits_name_clip_and_step(tiny):
    engine = Engine(tiny)
    whole, _ = engine.compose(prompts(), range(6), frames=12, sampling=SAMPLED)
    logits = engine._logits

    def spoil(state, at, *args):
        out = logits(state, at, *args)
        if at >= 5:
            out[1, 40] = torch.nan
        return out

    engine._logits = spoil
    codes, broken = engine.compose(prompts(), range(6), frames=12, sampling=SAMPLED)
    assert broken.tolist() == [-1, 5, -1, -1, -1, -1]
    good = (broken < 0).nonzero()[:, 0]
    assert torch.equal(codes[good], whole[good])


@torch.inference_mode()
def test_what_a_batch_left_in_the_cache_does_not_reach_the_next(tiny):
    engine, frames = Engine(tiny), 150
    assert len({room(at, engine.depth) for at in range(1, frames)}) > 2  # the cache grows
    fresh, _ = engine.compose(prompts(), range(6), frames=frames, sampling=SAMPLED)
    for cache in engine._kept[1].steps:
        for memory in (cache.memory, *cache.spare):
            memory.fill_(torch.nan)  # zero times this is not zero
    again, broken = engine.compose(prompts(), range(6), frames=frames, sampling=SAMPLED)
    assert torch.equal(again, fresh)
    assert broken.tolist() == [-1] * 6


def test_the_step_that_a_graph_replays_draws_the_same_tokens(model):
    """A GPU's step, its place a tensor and its cache whole, here on a CPU."""
    engine, texts, frames = Engine(model), prompts(), 80  # two buckets
    engine.compose(texts, range(6), frames=frames, sampling=SAMPLED)
    expected = engine._kept[1].tokens
    depth, steps = engine.width // engine.heads, frames + engine.delay
    engine._kept = None

    def whole(rows, positions):
        return Whole(rows, engine.heads, positions, depth, dtype=torch.float32)

    engine._text_cache = whole
    engine._step_caches = lambda rows, positions: [whole(n, positions) for n in rows]
    numbers = uniforms(list(range(6)), steps=steps, rows=engine.codebooks)
    with torch.inference_mode():
        state = engine._begin(texts, numbers, SAMPLED)
        for at in range(steps):
            engine._step(state, state.position, min((at // 64 + 1) * 64, steps), SAMPLED)
            state.position.add_(1)
    lags = [book // engine.channels for book in range(engine.codebooks)]
    for book, lag in enumerate(lags):
        kept = slice(lag + 1, lag + 1 + frames)
        assert torch.equal(state.tokens[:, book, kept], expected[:, book, kept])
    assert state.finite.all()


def test_a_float8_cache_changes_little(tiny):
    texts, sampling = prompts(), Sampling(guidance_scale=3.3, temperature=0)
    _, _, exact = scores_of(Engine(tiny), texts, frames=10, sampling=sampling)
    small = Engine(tiny, cache_dtype=torch.float8_e4m3fn)
    _, _, coarse = scores_of(small, texts, frames=10, sampling=sampling)
    assert 4 * small.cache_bytes(frames=10) == Engine(tiny).cache_bytes(frames=10)
    difference = (exact[0] - coarse[0]).abs().max() / exact[0].std()
    assert 0 < difference < 0.2


@pytest.mark.parametrize(
    ("options", "warpers"),
    [
        ({}, []),
        ({"temperature": 0.7}, [TemperatureLogitsWarper(0.7)]),
        ({"temperature": 1.2, "top_k": 5}, [TemperatureLogitsWarper(1.2), TopKLogitsWarper(5)]),
        ({"top_k": 9, "top_p": 0.8}, [TopKLogitsWarper(9), TopPLogitsWarper(0.8)]),
    ],
)
def test_draws_follow_the_distribution_of_transformers(options, warpers):
    draws = 100_000
    logits = torch.randn(1, 12, generator=torch.Generator().manual_seed(3)) * 1.5
    logits[0, 3] = logits[0, 7]  # ties
    expected = LogitsProcessorList(warpers)(None, logits.clone()).double().softmax(-1)[0].numpy()
    numbers = torch.from_numpy(uniforms(list(range(500)), steps=50, rows=4)).flatten()
    tokens, finite = draw_tokens(logits.repeat(draws, 1), numbers, Sampling(**options))
    assert finite.all()
    counts = tokens.bincount(minlength=12).numpy()
    assert not counts[expected == 0].any()
    kept = expected > 0
    assert chisquare(counts[kept], draws * expected[kept] / expected.sum()).pvalue > 1e-3
    other = LogitsProcessorList([*warpers, TemperatureLogitsWarper(1.2)])(None, logits.clone())
    wrong = other.double().softmax(-1)[0].numpy()[kept]  # the test tells temperature 1 from 1.2
    assert chisquare(counts[kept], draws * wrong / wrong.sum()).pvalue < 1e-3


def test_the_ends_of_the_interval_draw_possible_tokens():
    logits = torch.tensor([[-torch.inf, 0.0, 0.0, -torch.inf]]).repeat(2, 1)
    ends = torch.tensor([0.0, 1 - 2.0**-32], dtype=torch.float64)
    assert draw_tokens(logits, ends, Sampling())[0].tolist() == [1, 2]


def test_philox_against_the_published_vectors():
    """Random123's known answers for philox4x32-10."""
    ones = 0xFFFFFFFF
    for counter, key, expected in (
        ((0,) * 4, (0,) * 2, (0x6627E8D5, 0xE169C58D, 0xBC57AC4C, 0x9B00DBD8)),
        ((ones,) * 4, (ones,) * 2, (0x408F276D, 0x41C83B0E, 0xA20BC7C6, 0x6D5451FD)),
        (
            (0x243F6A88, 0x85A308D3, 0x13198A2E, 0x03707344),
            (0xA4093822, 0x299F31D0),
            (0xD16CFE09, 0x94FDCCEB, 0x5001E420, 0x24126EA1),
        ),
    ):
        words = philox4x32(tuple(map(np.uint64, counter)), tuple(map(np.uint64, key)))
        assert tuple(map(int, words)) == expected


def test_uniforms_depend_on_seed_step_and_row_only():
    numbers = uniforms([5, 2**63 - 1, 2**32 + 5], steps=6, rows=4)
    assert numbers.shape == (6, 3, 4)
    assert np.array_equal(uniforms([2**63 - 1], steps=3, rows=2)[:, 0], numbers[:3, 1, :2])
    assert len(np.unique(numbers)) == numbers.size
    many = uniforms(list(range(1000)), steps=20, rows=4).ravel()
    assert chisquare(np.histogram(many, bins=64, range=(0, 1))[0]).pvalue > 1e-3


def test_the_engine_imports_torch_transformers_and_numpy_only():
    package = Path(__file__).resolve().parent.parent / "workflow/scripts/conceptcaps"
    own, others = ["musicgen_engine"], set()
    for module in own:  # grows
        found = []
        for node in ast.walk(ast.parse((package / f"{module}.py").read_text())):
            if isinstance(node, ast.ImportFrom) and node.module == "conceptcaps":
                found += [f"conceptcaps.{alias.name}" for alias in node.names]
            elif isinstance(node, ast.ImportFrom):
                found.append(node.module)
            elif isinstance(node, ast.Import):
                found += [alias.name for alias in node.names]
        ours = {name.split(".")[1] for name in found if name.startswith("conceptcaps.")}
        own += sorted(ours - set(own))
        others.update(name.split(".")[0] for name in found)
    assert {"musicgen_cache", "musicgen_codec", "musicgen_weights", "matrices"} < set(own)
    assert others - sys.stdlib_module_names - {"conceptcaps"} == {"torch", "transformers", "numpy"}
