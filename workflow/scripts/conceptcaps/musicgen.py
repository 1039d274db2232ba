"""MusicGen: texts to codes and waves, one random stream per clip.

**Source:** Copet et al. 2023, "Simple and Controllable Music Generation" (section 2.2: delays).
"""

import math
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from huggingface_hub import hf_hub_download
from safetensors import SafetensorError
from transformers import AutoConfig, AutoTokenizer, MusicgenConfig, MusicgenForConditionalGeneration

from conceptcaps.clipquality import Limits
from conceptcaps.draws import Sampling
from conceptcaps.errors import InputError
from conceptcaps.musicgen_engine import Engine

_SHARE_OF_FREE = 0.85  # of a GPU's free memory, for caches; the rest is for what a step needs
WEIGHTS = (".safetensors", ".bin")  # endings of the files that hold a checkpoint's weights


@dataclass(frozen=True)
class Spec:
    """Config section `audio`."""

    backend: str  # "engine" (ours, checkpoints of transformers) or "audiocraft" (its own)
    model: str  # hub id, or local directory when revision is null
    revision: str | None
    dtype: str  # float16, bfloat16 or float32
    duration_s: float  # seconds, exact
    guidance_scale: float  # >= 1; 1 is no classifier-free guidance
    temperature: float  # >= 0; 0 is greedy
    top_k: int  # most probable tokens kept; 0 keeps all
    batch_size: int  # clips generated together
    level_dbfs: float | None  # RMS of every clip, dB re full scale; None leaves it as generated
    peak_dbfs: float  # dB re full scale; louder clips are turned down to it
    quality: Limits  # what a clip must keep
    min_yield: float  # share of items in [0, 1] that must not be lost

    @classmethod
    def of(cls, section: dict) -> "Spec":
        """Return the spec of the config section `audio`."""
        return cls(**section | {"quality": Limits(**section["quality"])})


class Generator:
    """A MusicGen checkpoint with its tokenizer, ready to turn captions into codes and waves.

    Attributes:
        codec: an EncodecModel of transformers; None if audiocraft's checkpoint has another one.
        sampling_rate_hz: of the codec.
        samples: per clip, round(duration_s * sampling_rate_hz).
        frames: of codes per clip, the fewest that hold the samples.
    """

    def __init__(self, spec: Spec):
        """Load the checkpoint on the GPU if there is one, else on the CPU."""
        self.spec = spec
        self.device = "cuda" if torch.cuda.is_available() else "cpu"
        model, self.tokenizer = _load(spec)
        codec = model.config.audio_encoder
        self.sampling_rate_hz = codec.sampling_rate
        self.samples = round(spec.duration_s * codec.sampling_rate)
        hop = math.prod(codec.upsampling_ratios)  # samples a frame
        self.frames = math.ceil(self.samples / hop)
        self.engine = Engine(model, device=self.device, dtype=getattr(torch, spec.dtype))
        self.codec = self.engine.codec
        _check_fit(spec, self.engine, frames=self.frames, frame_s=hop / codec.sampling_rate)
        self.sampling = Sampling(spec.guidance_scale, spec.temperature, spec.top_k)
        self.clips_at_once = spec.batch_size
        if self.device == "cuda":
            a_clip = self.engine.cache_bytes(frames=self.frames, guided=spec.guidance_scale > 1)
            self.clips_at_once = clips_that_fit(spec.batch_size, clip_bytes=a_clip)

    def play(self, texts: list[str], seeds: list[int]) -> np.ndarray:
        """Return waves [B, channels, samples] float32."""
        return self.waves(self.compose(texts, seeds)[0].cpu())

    def compose(self, texts: list[str], seeds: list[int]) -> tuple[torch.Tensor, torch.Tensor]:
        """Return codes [B, codebooks, frames] and the first broken step [B], -1 for none.

        As many clips at a time as fit the GPU's memory: halved when they do not.
        """
        done: list[tuple[torch.Tensor, torch.Tensor]] = []
        start = 0
        while start < len(texts):
            part = slice(start, start + self.clips_at_once)
            try:
                done.append(self._compose(texts[part], seeds[part]))
            except torch.OutOfMemoryError as error:
                self._halve(len(texts[part]), error)
            else:
                start = part.stop
        codes, broken = zip(*done, strict=True)
        return torch.cat(codes), torch.cat(broken)

    def waves(self, codes: torch.Tensor) -> np.ndarray:
        """Return waves [B, channels, samples] float32 of codes [B, codebooks, frames]."""
        return self.engine.decode(codes)[..., : self.samples].numpy()

    def _compose(self, texts: list[str], seeds: list[int]) -> tuple[torch.Tensor, torch.Tensor]:
        prompts = self._tokenize(texts)
        return self.engine.compose(prompts, seeds, frames=self.frames, sampling=self.sampling)

    def _halve(self, clips: int, error: Exception) -> None:
        if clips == 1:
            raise InputError(
                f"audio.duration_s: one clip of {self.spec.duration_s} s does not fit the GPU's "
                f"memory ({first_line(error)}). Shorten it, or use a larger GPU."
            ) from error
        self.clips_at_once = clips // 2
        self.engine.forget()
        torch.cuda.empty_cache()
        print(f"out of memory: from now on {self.clips_at_once} clips at a time", flush=True)

    def truncated(self, texts: list[str]) -> list[bool]:
        """Return which texts are longer than the text encoder reads; their ends are not heard."""
        limit = self.tokenizer.model_max_length
        return [len(ids) > limit for ids in self.tokenizer(texts, verbose=False)["input_ids"]]

    def _tokenize(self, texts: list[str]) -> list[list[int]]:
        return self.tokenizer(texts, truncation=True)["input_ids"]


def load_generator(spec: Spec) -> Generator:
    """Return the generator of the backend that the spec names, its checkpoint loaded.

    Raises:
        InputError: the checkpoint cannot be loaded, or the duration does not fit it.
    """
    if spec.backend == "audiocraft":
        from conceptcaps.musicgen_audiocraft import AudiocraftGenerator  # takes seconds to import

        return AudiocraftGenerator(spec)
    return Generator(spec)


def clips_that_fit(wanted: int, *, clip_bytes: int) -> int:
    """Return how many clips, of those wanted, the GPU's free memory holds; at least 1."""
    free, _ = torch.cuda.mem_get_info()
    return max(1, min(wanted, int(_SHARE_OF_FREE * free / clip_bytes)))


def resolve_model(model: str, revision: str | None) -> str:
    """Return what a table's `model` column says: the directory, or id@commit of a hub model.

    Raises:
        InputError: there is no such directory, or the hub model cannot be reached.
    """
    if revision is None:
        if not any((Path(model) / name).is_file() for name in ("config.json", "state_dict.bin")):
            raise InputError(
                f"audio.model: {model} is not a directory with a model (it has no config.json). "
                "Name one, or give a hub id together with audio.revision."
            )
        return model
    config = hub_file(model, "config.json", revision)
    return f"{model}@{Path(config).parent.name}"  # .../snapshots/<commit>/config.json


def hub_file(model: str, name: str, revision: str) -> str:
    """Return the local path of a file of a hub model, downloaded if it is not in the cache.

    Raises:
        InputError: it cannot be reached.
    """
    try:
        return hf_hub_download(model, name, revision=revision)
    except (OSError, ValueError) as error:
        raise InputError(_unloadable(model, revision, error)) from error


def _load(spec: Spec):
    try:
        tokenizer = AutoTokenizer.from_pretrained(spec.model, revision=spec.revision)
    except (OSError, ValueError, KeyError) as error:
        raise InputError(_tokenless(spec.model, first_line(error))) from error
    # Without tokenizer files, transformers makes up an empty tokenizer: every word is unknown.
    if (
        tokenizer.decode(tokenizer("music")["input_ids"], skip_special_tokens=True).strip()
        != "music"
    ):
        raise InputError(_tokenless(spec.model, "its vocabulary is empty"))
    try:
        config = AutoConfig.from_pretrained(spec.model, revision=spec.revision)
        if not isinstance(config, MusicgenConfig):
            raise InputError(
                f"audio.model: {spec.model} is a '{config.model_type}' checkpoint. "
                "Name one of MusicGen (model type 'musicgen')."
            )
        model = MusicgenForConditionalGeneration.from_pretrained(
            spec.model, revision=spec.revision, dtype=torch.float32, use_safetensors=True
        )
    except (OSError, ValueError, AttributeError, SafetensorError) as error:
        raise InputError(_unloadable(spec.model, spec.revision, error)) from error
    return model, tokenizer


def _tokenless(model: str, why: str) -> str:
    return (
        f"audio.model: {model} has no usable tokenizer ({why}). "
        "Save the text encoder's tokenizer in the same place."
    )


def _unloadable(model: str, revision: str | None, error: Exception) -> str:
    return (
        f"audio.model: {model} (revision {revision}) cannot be loaded as MusicGen "
        f"({first_line(error)}). Check the name and revision, the network, or HF_HOME."
    )


def first_line(error: Exception) -> str:
    """Return the kind of an error and the first line of what it says."""
    return f"{type(error).__name__}: {str(error).strip().splitlines()[0] if str(error) else ''}"


def _check_fit(spec: Spec, engine: Engine, *, frames: int, frame_s: float) -> None:
    if spec.guidance_scale < 1:
        raise InputError(
            f"audio.guidance_scale: {spec.guidance_scale} is below 1 (1 = no guidance)."
        )
    steps = frames + engine.delay
    if steps > engine.positions:
        longest = (engine.positions - engine.delay) * frame_s
        raise InputError(
            f"audio.duration_s: {spec.duration_s} s takes {steps} positions, but {spec.model} has "
            f"{engine.positions}: at most {longest:.2f} s."
        )
