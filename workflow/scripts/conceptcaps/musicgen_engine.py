"""MusicGen's decoder as a machine for batches: the weights of transformers, a loop of its own.

What is sampled is what `MusicgenForConditionalGeneration.generate` samples; what differs is the
work. Query, key and value are one product; keys and values lie in one preallocated cache of which
only the length reached is read; those of the text are computed once; the half without text skips
cross-attention, which adds exactly zero there (its text states are zeros and MusicGen's projections
have no bias); both halves of the guidance are one batch; delays and sampling stay on the device.
With `draws` and `musicgen_weights` it imports torch, transformers and numpy only.

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
from conceptcaps.musicgen_codec import Decoder
from conceptcaps.musicgen_weights import Layer, pack

# CPU: kernels for fewer rows sum in another order, and a clip would depend on its neighbours.
_FEWEST_ROWS = 4
# CPU: a clip's text is padded to a multiple of this, whatever the others' length.
_TEXT_BUCKET = 16
# CPU: steps of the cache that lie together. What is read is then one stretch of memory; with gaps
# between the heads a cache that the processor's own cannot hold is read at a third of the speed.
_CACHE_BLOCK = 16
# GPU: one graph for so many steps; the cache is read up to the end of the bucket, masked.
_STEP_BUCKET = 64


@dataclass
class _Texts:
    """Keys and values of the texts of consecutive clips, padded to one length."""

    clips: slice
    mask: torch.Tensor  # [g, 1, 1, N], to be added to scores: zero on text, -inf behind it
    keys: list[torch.Tensor]  # per layer, [g, H, N, d]
    values: list[torch.Tensor]


@dataclass
class _State:
    """A batch on its way: B clips, R = 2B rows with guidance, else B; S steps, K codebooks."""

    tokens: torch.Tensor  # [B, K, S + 1]; column 0 is the start token
    uniforms: torch.Tensor  # [S, B * K]
    broken: torch.Tensor  # [B]: first step with logits that are not finite, -1 for none
    # per layer, [R, H, S, d], on a CPU [blocks, R, H, steps, d]; B for R in the first layer
    keys: list[torch.Tensor]
    values: list[torch.Tensor]
    texts: list[_Texts]
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
        order = sorted(range(len(prompts)), key=lambda i: -(-len(prompts[i]) // _TEXT_BUCKET))
        steps, rows = frames + self.delay, self.codebooks
        numbers = uniforms([seeds[i] for i in order], steps=steps, rows=rows)
        state = self._begin([prompts[i] for i in order], numbers, sampling)
        if self.device.type == "cuda":
            self._replay(state, steps, sampling)
        else:
            for at in range(steps):
                self._step(state, at, at + 1, sampling)
        back = torch.tensor(np.argsort(order), device=self.device)
        tokens = state.tokens.index_select(0, back)
        lags = [book // self.channels for book in range(rows)]
        codes = [tokens[:, k, lag + 1 : lag + 1 + frames] for k, lag in enumerate(lags)]
        return torch.stack(codes, dim=1), state.broken.index_select(0, back)

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
        texts = self._read(prompts)
        key = (clips, steps, sampling, [text.mask.shape for text in texts])
        if self._kept and self._kept[0] == key:  # GPU: the graphs know these addresses
            state = self._kept[1]
            for new, old in zip(texts, state.texts, strict=True):
                old.mask.copy_(new.mask)
                for a, b in zip([*new.keys, *new.values], [*old.keys, *old.values], strict=True):
                    b.copy_(a)
        else:
            self._kept = None  # before the next cache is allocated
            state = _State(
                tokens=torch.empty(
                    clips, self.codebooks, steps + 1, dtype=torch.long, device=self.device
                ),
                uniforms=torch.empty(
                    steps, clips * self.codebooks, dtype=torch.float64, device=self.device
                ),
                broken=torch.empty(clips, dtype=torch.long, device=self.device),
                keys=self._cache(clips, rows, steps),
                values=self._cache(clips, rows, steps),
                texts=texts,
                position=torch.zeros(1, dtype=torch.long, device=self.device),
            )
            if self.device.type == "cuda":
                self._kept = key, state
        state.tokens.fill_(self.start)
        state.uniforms.copy_(torch.from_numpy(numbers.reshape(steps, -1)))
        state.broken.fill_(-1)
        state.position.zero_()
        return state

    def _cache(self, clips: int, rows: int, steps: int) -> list[torch.Tensor]:
        """Return room for keys or values: both halves are the same until they hear the text."""
        depth, size = self.width // self.heads, _CACHE_BLOCK
        caches = []
        for layer in range(len(self.weights.layers)):
            members = clips if layer == 0 else rows
            if self.device.type == "cuda":
                shape = (members, self.heads, steps, depth)
            else:
                shape = (-(-steps // size), members, self.heads, size, depth)
            caches.append(torch.zeros(shape, dtype=self.cache_dtype, device=self.device))
        return caches

    def _read(self, prompts: list[list[int]]) -> list[_Texts]:
        """Encode the texts, which are in order of their length, and project keys and values."""
        if self.device.type == "cuda":
            groups, size = [slice(0, len(prompts))], 8
        else:  # one text at a time: its states do not depend on its neighbours
            size = _TEXT_BUCKET
            buckets = [-(-len(prompt) // size) for prompt in prompts]
            groups = [
                slice(buckets.index(n), buckets.index(n) + buckets.count(n))
                for n in sorted(set(buckets))
            ]
        texts = []
        for clips in groups:
            group = prompts[clips]
            longest = -(-max(map(len, group)) // size) * size
            ids = torch.zeros(len(group), longest, dtype=torch.long)
            mask = torch.zeros(len(group), longest, dtype=torch.long)
            for row, prompt in enumerate(group):
                ids[row, : len(prompt)] = torch.tensor(prompt)
                mask[row, : len(prompt)] = 1
            ids, mask = ids.to(self.device), mask.to(self.device)
            at_once = len(group) if self.device.type == "cuda" else 1
            states = [
                self.project(self.text_encoder(input_ids=i, attention_mask=m).last_hidden_state)
                for i, m in zip(ids.split(at_once), mask.split(at_once), strict=True)
            ]
            states = (torch.cat(states) * mask[..., None]).to(self.dtype)  # (g, N, D)
            both = [
                (states @ layer.cross_kv)
                .view(len(group), longest, 2, self.heads, -1)
                .permute(2, 0, 3, 1, 4)
                .contiguous()
                for layer in self.weights.layers
            ]  # (2, g, H, N, d)
            texts.append(
                _Texts(
                    clips,
                    torch.zeros_like(mask, dtype=self.dtype)
                    .masked_fill_(mask == 0, -torch.inf)[:, None, None],
                    [kv[0] for kv in both],
                    [kv[1] for kv in both],
                )
            )
        return texts

    def _step(self, state: _State, at, reach: int, sampling: Sampling) -> None:
        """Feed the tokens of step `at` and draw those of the next.

        `at` is a number or, inside a graph, the tensor `state.position`; the cache is read up to
        `reach` > at, and masked behind `at` if that is a tensor.
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
        else:
            lags = torch.arange(self.codebooks, device=self.device) // self.channels
            through = (at >= lags) & (at < lags + frames)
            drawn = torch.where(through, drawn, self.start)
            state.tokens.index_copy_(2, at + 1, drawn[:, :, None])
        state.broken.copy_(torch.where((state.broken < 0) & ~finite, at, state.broken))

    def _logits(self, state: _State, at, reach: int, guidance_scale: float) -> torch.Tensor:
        """Return logits [B, K * V] float32 of the step `at`, guided."""
        clips = len(state.tokens)
        if isinstance(at, int):
            tokens, place = state.tokens[:, :, at], self.weights.positions[at]
        else:
            tokens = state.tokens.index_select(2, at)[:, :, 0]
            place = self.weights.positions.index_select(0, at)
        x = (
            F.embedding_bag(tokens + self.offsets, self.weights.embedding, mode="sum") + place
        )  # (B, D)
        for index, layer in enumerate(self.weights.layers):
            y = _linear(_normed(x, layer.norms[0]), layer.qkv)
            q, k, v = y.view(len(x), 3, self.heads, -1).unbind(1)  # (R, H, d)
            remember = self._remember_blocks if isinstance(at, int) else self._remember
            y = remember(q, k, v, state.keys[index], state.values[index], at, reach)
            x = _linear(y, layer.out, x)
            heard = self._hear(x[:clips], layer, state.texts, index)
            if guidance_scale > 1:  # the half without text: here, and from here on its own
                x = torch.cat([heard, x[-clips:]])
            else:
                x = heard
            y = self.activation(_linear(_normed(x, layer.norms[2]), layer.fc1))
            x = _linear(y, layer.fc2, x)
        x = _normed(x, self.weights.last_norm).float()
        if guidance_scale > 1:  # the heads are linear: guidance before them is half the work
            given, null = x[:clips], x[clips:]
            x = (given - null).mul_(guidance_scale).add_(null)
        return _linear(x, self.weights.heads)

    def _hear(self, x: torch.Tensor, layer: Layer, texts: list[_Texts], index: int):
        """Return x [B, D] after cross-attention: rows with text only."""
        q = _linear(_normed(x, layer.norms[1]), layer.cross_q)
        heard = [
            self._attend(
                q[text.clips].unflatten(1, (self.heads, -1)),
                text.keys[index],
                text.values[index],
                text.mask,
            )
            for text in texts
        ]
        return _linear(heard[0] if len(heard) == 1 else torch.cat(heard), layer.cross_out, x)

    def _remember(self, q, k, v, keys, values, at: torch.Tensor, reach: int) -> torch.Tensor:
        """Note keys and values [R, H, d] of the step `at`; return what q hears up to it, [R, D]."""
        keys.index_copy_(2, at, k[:, :, None].to(keys.dtype))
        values.index_copy_(2, at, v[:, :, None].to(values.dtype))
        known = torch.arange(reach, device=self.device) <= at  # broadcasts over rows, heads
        return self._attend(q, keys[:, :, :reach], values[:, :, :reach], known)

    def _remember_blocks(self, q, k, v, keys, values, at: int, reach: int) -> torch.Tensor:
        """The same on a CPU, where the cache is in blocks [n, R, H, steps, d]."""
        size = keys.shape[3]
        block, row = divmod(at, size)
        keys[block, :, :, row], values[block, :, :, row] = k, v
        keys, values = keys[: block + 1].to(q.dtype), values[: block + 1].to(q.dtype)
        scores = q[:, :, None] @ keys.transpose(3, 4)  # (n, R, H, 1, steps)
        scores = scores[:, :, :, 0].permute(1, 2, 0, 3).flatten(2)  # (R, H, S)
        scores[:, :, reach:] = -torch.inf
        weights = scores.softmax(-1).unflatten(2, (block + 1, size)).permute(2, 0, 1, 3)
        return (weights[:, :, :, None] @ values).sum(0).flatten(1)

    def _attend(self, q, keys, values, mask) -> torch.Tensor:
        """Return [R, D]: one query per row [R, H, d] over keys and values [R, H, N, d]."""
        q, keys, values = q[:, :, None], keys.to(q.dtype), values.to(q.dtype)
        if q.is_cuda:
            y = F.scaled_dot_product_attention(q, keys, values, attn_mask=mask, scale=1.0)
        else:  # the same in three products, half as long for a single query
            y = (q @ keys.transpose(2, 3)).add_(mask).softmax(-1) @ values
        return y.flatten(1)

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
            state.broken.fill_(-1)
        pool = others[0].pool() if others else None
        # another thread may be decoding: its calls must not end this capture
        with torch.cuda.graph(graph, pool=pool, capture_error_mode="thread_local"):
            self._step(state, state.position, reach, sampling)
            state.position.add_(1)
        return graph


def _normed(x: torch.Tensor, norm: tuple[torch.Tensor, torch.Tensor, float]) -> torch.Tensor:
    weight, bias, eps = norm
    return F.layer_norm(x, weight.shape, weight, bias, eps)


def _linear(x: torch.Tensor, weight: torch.Tensor, residual: torch.Tensor | None = None):
    """Return x [M, in] times weight [in, out], plus the residual [M, out]."""
    short = _FEWEST_ROWS - len(x)
    if short > 0 and not x.is_cuda:
        more = None if residual is None else F.pad(residual, (0, 0, 0, short))
        return _linear(F.pad(x, (0, 0, 0, short)), weight, more)[:-short]
    return x @ weight if residual is None else torch.addmm(residual, x, weight)
