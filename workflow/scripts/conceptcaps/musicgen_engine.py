"""MusicGen's decoder as a machine for batches: the weights of transformers, a loop of its own.

What is sampled is what `MusicgenForConditionalGeneration.generate` samples; what differs is the
work. Query, key and value are one product; keys and values lie in one preallocated cache of which
only the length reached is read; those of the text are computed once; the half without text skips
cross-attention, which adds exactly zero there (its text states are zeros and MusicGen's projections
have no bias); both halves of the guidance are one batch, and one and the same up to the first
layer's cross-attention; guidance comes before the heads, which are linear; delays and sampling stay
on the device. With the modules that it imports it needs torch, transformers and numpy only.

**Source:** Copet et al. 2023, "Simple and Controllable Music Generation" (section 2.2: delays).
**Differs:** random numbers come from Philox keyed by (clip seed, step, codebook) and invert the
cumulated softmax, so that a clip's tokens depend on its own seed and caption only.
"""

from dataclasses import dataclass, field

import numpy as np
import torch
import torch.nn.functional as F
from transformers import MusicgenForConditionalGeneration
from transformers.activations import ACT2FN

from conceptcaps.draws import Sampling, draw_tokens, uniforms
from conceptcaps.musicgen_cache import Dense, Growing, Whole, growing, room
from conceptcaps.musicgen_codec import Decoder
from conceptcaps.musicgen_weights import pack

# GPU: one graph for so many steps; the cache is read up to the end of the bucket, masked.
_STEP_BUCKET = 64


@dataclass
class _State:
    """A batch on its way: B clips, R = 2B rows with guidance, else B; S steps, K codebooks."""

    tokens: torch.Tensor  # [B, K, S + 1]; column 0 is the start token
    uniforms: torch.Tensor  # [S, B * K]
    finite: torch.Tensor  # [S, B]: whether all logits of a step were
    steps: list[Whole | Growing]  # per layer, of R rows; B in the first, where halves are the same
    texts: list[Whole | Dense]  # per layer, of B rows
    silence: torch.Tensor  # their mask: what is behind the end of a text is not heard
    position: torch.Tensor  # [1], GPU only: the step that a graph replays
    graphs: dict[int, torch.cuda.CUDAGraph] = field(default_factory=dict)


class Engine:
    """Turn tokenised prompts into EnCodec codes, and codes into waves.

    Attributes:
        codebooks: rows of codes per clip, K (stereo checkpoints: both channels, interleaved).
        channels: 1 or 2.
        delay: of the last codebook, in steps: T frames take T + delay steps.
        positions: the most steps that the checkpoint was made for.
    """

    def __init__(
        self,
        model: MusicgenForConditionalGeneration,
        *,
        device: str = "cpu",
        dtype: torch.dtype = torch.float32,
        cache_dtype: torch.dtype | None = None,
        codec_clips: int = 8,
    ):
        """Pack the decoder's weights; the text encoder and the codec are moved to the device.

        Args:
            model: any MusicGen checkpoint. Its decoder is copied and may be dropped afterwards.
            device: "cpu" or "cuda".
            dtype: of the decoder; logits, text encoder and codec are float32.
            cache_dtype: of the key/value cache if not `dtype`; torch.float8_e4m3fn halves it.
            codec_clips: clips that the codec decodes at a time on a GPU; on a CPU it is one.

        Raises:
            TypeError: the model is of another class, or its projections have biases.
        """
        if not isinstance(model, MusicgenForConditionalGeneration):
            raise TypeError(f"{type(model).__name__} is not a MusicGen checkpoint")
        self.device, self.dtype = torch.device(device), dtype
        self.cache_dtype, self.codec_clips = cache_dtype or dtype, codec_clips
        config = model.config.decoder
        self.codebooks, self.channels = config.num_codebooks, config.audio_channels
        self.delay = self.codebooks // self.channels - 1
        self.positions = config.max_position_embeddings
        self.heads, self.width = config.num_attention_heads, config.hidden_size
        self.depth = self.width // self.heads
        self.vocabulary = config.vocab_size
        self.start = model.generation_config.decoder_start_token_id
        if self.start is None:
            self.start = model.generation_config.bos_token_id
        self.activation = ACT2FN[config.activation_function]
        self.text_encoder = model.text_encoder.to(self.device, torch.float32).eval()
        self.codec = model.audio_encoder.to(self.device, torch.float32).eval()
        self.decoder = Decoder(self.codec) if self.device.type == "cpu" else None
        projected = (
            model.text_encoder.config.hidden_size != self.width
            and config.cross_attention_hidden_size is None
        )
        self.project = (
            model.enc_to_dec_proj.to(self.device, torch.float32)
            if projected
            else torch.nn.Identity()
        )
        self.weights = pack(model, device=self.device, dtype=dtype)
        tables = torch.arange(self.codebooks, device=self.device)
        self.offsets = tables * (self.vocabulary + 1)
        self.aside = torch.cuda.Stream() if self.device.type == "cuda" else None
        self._kept: tuple[tuple, _State] | None = None

    def cache_bytes(self, *, frames: int, guided: bool = True) -> int:
        """Return the bytes of key/value cache that one clip of T frames takes."""
        rows = 2 if guided else 1
        per_step = 2 * rows * len(self.weights.layers) * self.width * self.cache_dtype.itemsize
        return per_step * (frames + self.delay)

    @torch.inference_mode()
    def compose(
        self, prompts: list[list[int]], seeds: list[int], *, frames: int, sampling: Sampling
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Return codes [B, K, frames] int64 and the first broken step [B], both on the device.

        Nothing waits for the device. On a CPU in float32 a clip's codes are bitwise the same in
        any batch.

        Args:
            prompts: token ids of each text, not padded.
            seeds: one per clip, below 2**64.
            frames: length of the clips, T; the codec's frame rate says how long that is.
            sampling: how tokens are drawn.

        A broken step is the first whose logits were not finite, -1 if there is none.
        """
        steps, rows = frames + self.delay, self.codebooks
        numbers = uniforms(seeds, steps=steps, rows=rows)
        state = self._begin(prompts, numbers, sampling)
        if self.device.type == "cuda":
            self._replay(state, steps, sampling)
        else:
            for at in range(steps):
                self._step(state, at, room(at + 1, self.depth), sampling)
        lags = [book // self.channels for book in range(rows)]
        codes = [state.tokens[:, k, lag + 1 : lag + 1 + frames] for k, lag in enumerate(lags)]
        broken = (~state.finite).int().max(dim=0)  # the first of equals
        return torch.stack(codes, dim=1), broken.indices.where(broken.values > 0, -1)

    def forget(self) -> None:
        """Give the last batch's cache and graphs back."""
        self._kept = None

    @torch.inference_mode()
    def decode(self, codes: torch.Tensor) -> torch.Tensor:
        """Return waves [B, channels, samples] float32 on the CPU, of codes [B, K, T] on the CPU."""
        if self.device.type == "cuda":  # beside the next batch, if another thread composes it
            with torch.cuda.stream(self.aside):
                return self._decode(codes.to(self.device)).cpu()
        return self._decode(codes)

    def _decode(self, codes: torch.Tensor) -> torch.Tensor:
        sides = [codes[:, side :: self.channels] for side in range(self.channels)]
        return torch.cat([self._waves(side) for side in sides], dim=1)

    def _waves(self, codes: torch.Tensor) -> torch.Tensor:
        if self.decoder:
            return torch.stack([self.decoder.play(clip) for clip in codes])
        parts = codes.split(self.codec_clips)
        return torch.cat([self.codec.decode(few[None], audio_scales=[None])[0] for few in parts])

    def _begin(self, prompts: list[list[int]], numbers: np.ndarray, sampling: Sampling) -> _State:
        steps, clips, _ = numbers.shape
        rows = 2 * clips if sampling.guidance_scale > 1 else clips
        states, heard = self._read(prompts)
        key = (clips, steps, sampling, heard.shape)
        if self._kept and self._kept[0] == key:  # a GPU's graphs know these addresses
            state = self._kept[1]
            for cache in state.steps:
                cache.clear()
            state.silence.copy_(state.texts[0].mask(~heard, self.dtype))
        else:
            self._kept = None  # before the next cache is allocated
            texts = [self._text_cache(clips, heard.shape[1]) for _ in self.weights.layers]
            state = _State(
                tokens=torch.empty(
                    clips, self.codebooks, steps + 1, dtype=torch.long, device=self.device
                ),
                uniforms=torch.empty(
                    steps, clips * self.codebooks, dtype=torch.float64, device=self.device
                ),
                finite=torch.empty(steps, clips, dtype=torch.bool, device=self.device),
                steps=self._step_caches([clips] + [rows] * (len(self.weights.layers) - 1), steps),
                texts=texts,
                silence=texts[0].mask(~heard, self.dtype),
                position=torch.zeros(1, dtype=torch.long, device=self.device),
            )
            self._kept = key, state
        for cache, layer in zip(state.texts, self.weights.layers, strict=True):
            cache.fill(layer.cross_kv.product(states).unflatten(2, (2, self.heads, -1)))
        state.tokens.fill_(self.start)
        state.uniforms.copy_(torch.from_numpy(numbers.reshape(steps, -1)))
        state.position.zero_()
        return state

    def _step_caches(self, rows: list[int], steps: int) -> list[Whole] | list[Growing]:
        shape = self.heads, steps, self.depth
        if self.device.type == "cpu":
            return growing(rows, *shape, dtype=self.cache_dtype)
        return [Whole(n, *shape, dtype=self.cache_dtype, device=self.device) for n in rows]

    def _text_cache(self, rows: int, positions: int) -> Whole | Dense:
        shape = rows, self.heads, positions, self.depth
        if self.device.type == "cpu":
            return Dense(*shape, dtype=self.dtype)
        return Whole(*shape, dtype=self.dtype, device=self.device)

    def _read(self, prompts: list[list[int]]) -> tuple[torch.Tensor, torch.Tensor]:
        """Return the states of the texts [B, N, D], zero behind their ends, and where they are."""
        lengths = [room(len(prompt), self.depth) for prompt in prompts]
        ids = torch.zeros(len(prompts), max(lengths), dtype=torch.long)
        mask = torch.zeros_like(ids)
        for row, prompt in enumerate(prompts):
            ids[row, : len(prompt)] = torch.tensor(prompt)
            mask[row, : len(prompt)] = 1
        ids, mask = ids.to(self.device), mask.to(self.device)
        if self.device.type == "cuda":
            groups = [list(range(len(prompts)))]
        else:  # texts of one length together: a text's states do not depend on its neighbours
            groups = [[i for i, n in enumerate(lengths) if n == size] for size in set(lengths)]
        states = torch.zeros(*ids.shape, self.width, device=self.device)
        for rows in groups:
            size = max(lengths[row] for row in rows)
            part = ids[rows, :size], mask[rows, :size]
            states[rows, :size] = self.project(self.text_encoder(*part).last_hidden_state)
        return (states * mask[..., None]).to(self.dtype), mask.bool()

    def _step(self, state: _State, at, reach: int, sampling: Sampling) -> None:
        """Feed the tokens of step `at` and draw those of the next.

        `at` is a number or, inside a graph, the tensor `state.position`; the cache is read up to
        `reach` > at, and masked behind `at`.
        """
        clips, books = state.tokens.shape[:2]
        logits = self._logits(state, at, reach, sampling.guidance_scale)
        uniform = state.uniforms[at] if isinstance(at, int) else state.uniforms.index_select(0, at)
        drawn, finite = draw_tokens(logits.view(clips * books, -1), uniform.view(-1), sampling)
        drawn, finite = drawn.view(clips, books), finite.view(clips, books).all(dim=1)
        self._write(state, at, drawn, finite)

    def _write(self, state: _State, at, drawn: torch.Tensor, finite: torch.Tensor) -> None:
        """Keep what the delay pattern lets through: codebook k starts k steps late."""
        frames = state.tokens.shape[2] - 1 - self.delay
        if isinstance(at, int):
            first, last = max(0, at - frames + 1), min(at, self.delay)  # books that have a token
            books = slice(first * self.channels, (last + 1) * self.channels)
            state.tokens[:, books, at + 1] = drawn[:, books]
            state.finite[at] = finite
        else:
            lags = torch.arange(self.codebooks, device=self.device) // self.channels
            through = (at >= lags) & (at < lags + frames)
            drawn = torch.where(through, drawn, self.start)
            state.tokens.index_copy_(2, at + 1, drawn[:, :, None])
            state.finite.index_copy_(0, at, finite[None])

    def _logits(self, state: _State, at, reach: int, guidance_scale: float) -> torch.Tensor:
        """Return logits [B, K * V] float32 of the step `at`, guided."""
        clips = state.tokens.shape[0]
        rows = 2 * clips if guidance_scale > 1 else clips
        if isinstance(at, int):
            tokens, place = state.tokens[:, :, at], self.weights.positions[at]
        else:
            tokens = state.tokens.index_select(2, at)[:, :, 0]
            place = self.weights.positions.index_select(0, at)
        later = torch.arange(reach, device=self.device)[None] > at
        future = state.steps[0].mask(later, self.dtype)
        x = F.embedding_bag(tokens + self.offsets, self.weights.embedding, mode="sum")
        x = x + place  # (B, D)
        for layer, steps, texts in zip(self.weights.layers, state.steps, state.texts, strict=True):
            y = layer.qkv.product(_normed(x, layer.norms[0]))
            y = y.view(x.shape[0], 3, self.heads, -1)
            steps.note(at, y[:, 1:])
            layer.out.add_product(x, steps.attend(y[:, 0], future))
            if x.shape[0] < rows:  # the first layer: from here on the half without text is another
                x = torch.cat([x, x])
            heard = x[:clips]
            q = layer.cross_q.product(_normed(heard, layer.norms[1]))
            y = texts.attend(q.view(clips, self.heads, -1), state.silence)
            layer.cross_out.add_product(heard, y)
            y = self.activation(layer.fc1.product(_normed(x, layer.norms[2])))
            layer.fc2.add_product(x, y)
        x = _normed(x, self.weights.last_norm).float()
        if rows > clips:  # the heads are linear: guidance before them is half the work
            given, null = x[:clips], x[clips:]
            x = (given - null).mul_(guidance_scale).add_(null)
        return self.weights.heads.product(x)

    def _replay(self, state: _State, steps: int, sampling: Sampling) -> None:
        """Run all steps as CUDA graphs, one for each bucket of lengths."""
        for at in range(steps):
            reach = min((at // _STEP_BUCKET + 1) * _STEP_BUCKET, steps)
            if reach not in state.graphs:
                state.graphs[reach] = self._capture(state, reach, sampling)
            state.graphs[reach].replay()

    def _capture(self, state: _State, reach: int, sampling: Sampling) -> torch.cuda.CUDAGraph:
        graph = torch.cuda.CUDAGraph()
        others = list(state.graphs.values())
        if not others:  # libraries choose their kernels outside of a graph; then undo that step
            first = torch.cuda.Stream()
            first.wait_stream(torch.cuda.current_stream())
            with torch.cuda.stream(first):
                self._step(state, state.position, reach, sampling)
            torch.cuda.current_stream().wait_stream(first)
            state.tokens.fill_(self.start)
        pool = others[0].pool() if others else None
        # another thread may be decoding: its calls must not end this capture
        with torch.cuda.graph(graph, pool=pool, capture_error_mode="thread_local"):
            self._step(state, state.position, reach, sampling)
            state.position.add_(1)
        return graph


def _normed(x: torch.Tensor, norm: tuple[torch.Tensor, torch.Tensor, float]) -> torch.Tensor:
    weight, bias, eps = norm
    return F.layer_norm(x, weight.shape, weight, bias, eps)
