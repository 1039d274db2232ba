"""MusicGen as audiocraft plays it, behind the interface of `musicgen.Generator`.

The network, its key/value cache and its codec are audiocraft's own; the draws are ours, so that
here, too, a clip's tokens depend on its own seed and caption: in float32 they are the engine's.

**Source:** audiocraft 1.3.0 (Copet et al. 2023). **Differs:** next tokens are drawn with
`draws.draw_tokens` instead of the global random generator; captions of different length are not
padded to one batch, since audiocraft's cross-attention does not mask padding, which would move a
clip with its neighbours.
"""

import math
from pathlib import Path

import numpy as np
import torch
from audiocraft.models import MusicGen
from audiocraft.modules.conditioners import ConditioningAttributes
from transformers import EncodecModel

from conceptcaps.draws import Sampling, draw_tokens, uniforms
from conceptcaps.errors import InputError
from conceptcaps.musicgen import Generator, Spec, first_line, hub_file

FILES = ("state_dict.bin", "compression_state_dict.bin")  # language model, codec


class AudiocraftGenerator(Generator):
    """A checkpoint in audiocraft's format: a directory with `FILES`, or a hub id that has them."""

    def __init__(self, spec: Spec):
        """Load the checkpoint on the GPU if there is one, else on the CPU.

        Weights are read as data only (`weights_only`, torch's default). Text encoder and codec are
        those that the checkpoint names, from the hub's cache.

        Raises:
            InputError: it cannot be loaded, or the duration is beyond what it was made for.
        """
        self.spec = spec
        self.device = "cuda" if torch.cuda.is_available() else "cpu"
        try:
            directory = spec.model
            if spec.revision is not None:  # audiocraft itself knows no revisions
                paths = [hub_file(spec.model, name, spec.revision) for name in FILES]
                directory = str(Path(paths[0]).parent)
            model = MusicGen.get_pretrained(directory, device=self.device)
        except InputError:
            raise
        except Exception as error:  # audiocraft checks little: what it stumbles over is its input
            raise InputError(
                f"audio.model: {spec.model} cannot be loaded by audiocraft ({first_line(error)}). "
                f"It takes a directory with {' and '.join(FILES)}, or a hub id; the text encoder "
                "and the codec that they name must be in the hub's cache."
            ) from error
        if spec.duration_s > model.max_duration:
            raise InputError(
                f"audio.duration_s: {spec.duration_s} s, but {spec.model} was made for at most "
                f"{model.max_duration} s."
            )
        self.model, self.lm = model, model.lm
        # audiocraft wraps a codec of the hub, twice for stereo; its own format holds none
        wrapped = model.compression_model.modules()
        self.codec = next((part for part in wrapped if isinstance(part, EncodecModel)), None)
        self.lm.to(getattr(torch, spec.dtype))
        self.tokenizer = self.lm.condition_provider.conditioners["description"].t5_tokenizer
        self.sampling_rate_hz = model.sample_rate
        self.samples = round(spec.duration_s * model.sample_rate)
        self.frames = math.ceil(self.samples * model.frame_rate / model.sample_rate)
        self.sampling = Sampling(spec.guidance_scale, spec.temperature, spec.top_k)
        self.clips_at_once = spec.batch_size

    def waves(self, codes: torch.Tensor) -> np.ndarray:
        """Return waves [B, channels, samples] float32 of codes [B, codebooks, frames]."""
        with torch.inference_mode():
            waves = self.model.compression_model.decode(codes.to(self.device), None)
        return waves[..., : self.samples].float().cpu().numpy()

    def truncated(self, texts: list[str]) -> list[bool]:
        """Return False of every text: audiocraft's text encoder reads them to the end."""
        return [False] * len(texts)

    def _compose(self, texts: list[str], seeds: list[int]) -> tuple[torch.Tensor, torch.Tensor]:
        groups: dict[int, list[int]] = {}
        for k, ids in enumerate(self.tokenizer(texts, verbose=False)["input_ids"]):
            groups.setdefault(len(ids), []).append(k)
        parts = [
            self._play_alike([texts[k] for k in group], [seeds[k] for k in group])
            for group in groups.values()
        ]
        back = torch.tensor(np.argsort(np.concatenate(list(groups.values()))), device=self.device)
        codes, broken = (torch.cat(part)[back] for part in zip(*parts, strict=True))
        return codes, broken

    @torch.inference_mode()
    def _play_alike(self, texts: list[str], seeds: list[int]) -> tuple[torch.Tensor, torch.Tensor]:
        """Compose clips whose texts have the same number of tokens."""
        books = self.lm.num_codebooks
        steps = self.frames + max(self.lm.pattern_provider.delays)
        numbers = torch.from_numpy(uniforms(seeds, steps=steps, rows=books)).to(self.device)
        broken = torch.full((len(texts),), -1, device=self.device)
        at = 0

        def draw(sequence, conditions, *_, **__) -> torch.Tensor:
            nonlocal at
            both = self.lm(torch.cat([sequence] * 2), [], condition_tensors=conditions)
            logits, null = both[:, :, -1].float().chunk(2)
            if self.sampling.guidance_scale > 1:
                logits = (logits - null).mul_(self.sampling.guidance_scale).add_(null)
            rows = logits.reshape(len(texts) * books, -1)
            tokens, finite = draw_tokens(rows, numbers[at].reshape(-1), self.sampling)
            finite = finite.view(-1, books).all(dim=1)
            broken.copy_(torch.where((broken < 0) & ~finite, at, broken))
            at += 1
            return tokens.view(-1, books, 1)

        self.lm._sample_next_token = draw  # what its generate calls for every step
        try:
            codes = self.lm.generate(
                conditions=[ConditioningAttributes(text={"description": text}) for text in texts],
                max_gen_len=self.frames,
            )
        finally:
            del self.lm._sample_next_token
        return codes, broken
