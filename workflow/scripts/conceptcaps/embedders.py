"""Models of audio as embedders: windows of audio, and for CLAP texts, to vectors.

All have the same few facts and methods (`Embedder`); `embeddings` does the rest.

**Source:** CLAP: Wu et al. 2023, "Large-scale Contrastive Language-Audio Pretraining".
"""

import hashlib
from abc import ABC, abstractmethod
from functools import cache
from pathlib import Path
from pickle import UnpicklingError

import numpy as np
import torch
from huggingface_hub import hf_hub_download
from safetensors import SafetensorError

from conceptcaps.errors import InputError, nearest
from conceptcaps.genrenet import mel_filterbank
from conceptcaps.htsat import hasten

TEXT_TOKENS = 77  # CLAP's context, special tokens included: longer texts are cut
_CPU_WINDOWS = 4  # embedded at a time on a CPU: more leave its caches


class Embedder(ABC):
    """What every embedder has.

    Attributes:
        name: of the model, for recipes.
        code: file of its code, part of the key under which embeddings are stored.
        sampling_rate_hz: of the windows that it takes.
        window_s: the longest window that it takes, seconds.
        dimension: of its vectors.
        unit_norm: whether its vectors have norm 1, and means of them shall have it too.
    """

    code = __file__
    unit_norm = True

    @abstractmethod
    def prepare(self, window: np.ndarray) -> np.ndarray:
        """Return what the model takes of a mono window [T] float32; threads do this beside it."""

    @abstractmethod
    def embed_prepared(self, batch: list[np.ndarray]) -> np.ndarray:
        """Embed prepared windows as [N, D] float32."""

    def embed_audio(self, windows: list[np.ndarray]) -> np.ndarray:
        """Embed waves, each [round(window_s * sampling_rate_hz)], as [N, D] float32."""
        return self.embed_prepared([self.prepare(window) for window in windows])

    @abstractmethod
    def weights(self) -> dict[str, torch.Tensor]:
        """Return all tensors that the embeddings depend on."""

    @cache  # noqa: B019 - one embedder lives as long as its process
    def weights_sha256(self) -> str:
        """Return a hash of the weights."""
        digest = hashlib.sha256()
        for name, tensor in sorted(self.weights().items()):
            data = np.ascontiguousarray(tensor.detach().cpu().numpy())
            digest.update(f"{name} {data.dtype} {data.shape}".encode())
            digest.update(data)
        return digest.hexdigest()


class LogMel(Embedder):
    """Means and standard deviations over time of a log-mel spectrogram: a baseline without weights.

    It hears level, spectrum and how much they change, not music; it has no text tower.
    """

    name = "logmel"
    sampling_rate_hz = 22050
    window_s = 60.0
    bands = 64
    dimension = 2 * bands
    unit_norm = False
    fft = 1024  # samples, 46 ms; hop half of it

    def __init__(self):
        """Build the filters."""
        self.filters = mel_filterbank(
            sampling_rate_hz=self.sampling_rate_hz, fft=self.fft, bands=self.bands
        )
        self.taper = torch.hann_window(self.fft)

    def prepare(self, window: np.ndarray) -> np.ndarray:
        """Return the window."""
        return window

    @torch.inference_mode()
    def embed_prepared(self, batch: list[np.ndarray]) -> np.ndarray:
        """Embed windows [T] as [N, 128]: 64 means (log power), 64 standard deviations."""
        return np.stack([self._statistics(torch.from_numpy(window)) for window in batch])

    def _statistics(self, window: torch.Tensor) -> np.ndarray:
        spectrum = torch.stft(
            window, self.fft, self.fft // 2, window=self.taper, return_complex=True
        )
        log_power = torch.log(spectrum.abs().square().T @ self.filters + 1e-6)  # (frames, bands)
        return torch.cat([log_power.mean(0), log_power.std(0)]).numpy()

    def weights(self) -> dict[str, torch.Tensor]:
        """Return the mel filters."""
        return {"filters": self.filters}


class TransformersClap(Embedder):
    """A CLAP checkpoint in the transformers format."""

    def __init__(self, *, model: str, revision: str | None):
        """Load model, feature extractor and tokenizer, on the GPU if there is one.

        Raises:
            InputError: one of them is missing or does not load.
        """
        from transformers import ClapModel, ClapProcessor

        self.device = _device()
        _check_directory(model, revision)
        try:
            processor = ClapProcessor.from_pretrained(model, revision=revision)
            self.model = ClapModel.from_pretrained(
                model, revision=revision, dtype=torch.float32, use_safetensors=True
            )
        except (OSError, ValueError, KeyError, SafetensorError) as error:
            raise InputError(_unloadable(model, revision, error)) from error
        self.model.to(self.device).eval()
        self.extractor, self.tokenizer = processor.feature_extractor, processor.tokenizer
        # Without tokenizer files, transformers makes up an empty one: every word is unknown.
        ids = self.tokenizer("music")["input_ids"]
        if self.tokenizer.decode(ids, skip_special_tokens=True).strip() != "music":
            raise InputError(f"scores.clap.model: {model} has no tokenizer. Save one beside it.")
        self.name = f"{model}@{revision}" if revision else model
        self.sampling_rate_hz = self.extractor.sampling_rate
        self.window_s = self.extractor.nb_max_samples / self.sampling_rate_hz
        self.dimension = self.model.config.projection_dim

    def prepare(self, window: np.ndarray) -> np.ndarray:
        """Return the extractor's log-mel spectrogram of a window."""
        features = self.extractor(window, sampling_rate=self.sampling_rate_hz, return_tensors="np")
        return features["input_features"][0].astype(np.float32)

    @torch.inference_mode()
    def embed_prepared(self, batch: list[np.ndarray]) -> np.ndarray:
        """Embed log-mel spectrograms as [N, D] float32 of norm 1."""
        # The extractor of fusion checkpoints marks one window of a batch, drawn at random, as long.
        longer = torch.zeros(len(batch), 1, dtype=torch.bool, device=self.device)
        features = torch.from_numpy(np.stack(batch)).to(self.device)
        embedded = self.model.get_audio_features(input_features=features, is_longer=longer)
        return _unit(embedded.pooler_output)

    def weights(self) -> dict[str, torch.Tensor]:
        """Return the model's tensors."""
        return self.model.state_dict()

    @torch.inference_mode()
    def embed_text(self, texts: list[str]) -> tuple[np.ndarray, np.ndarray]:
        """Embed texts as [N, D] float32 of norm 1; tell which [N] were cut at the text limit."""
        limit = min(TEXT_TOKENS, self.tokenizer.model_max_length)
        lengths = [len(ids) for ids in self.tokenizer(texts, verbose=False)["input_ids"]]
        encoded = self.tokenizer(
            texts, padding=True, truncation=True, max_length=limit, return_tensors="pt"
        )
        embedded = self.model.get_text_features(
            input_ids=encoded["input_ids"].to(self.device),
            attention_mask=encoded["attention_mask"].to(self.device),
        )
        return _unit(embedded.pooler_output), np.array(lengths) > limit


class LaionClap(Embedder):
    """A CLAP checkpoint in laion_clap's own format, without fusion."""

    def __init__(self, *, model: str, revision: str | None, checkpoint: str, architecture: str):
        """Build the architecture and load the checkpoint, on the GPU if there is one.

        Importing laion_clap loads three tokenizers from the hub cache, and building the module
        loads roberta-base, which the checkpoint then overwrites.

        Raises:
            InputError: the checkpoint or the hub models are missing, or the weights do not fit.
        """
        path = _fetch(model, checkpoint, revision)
        weights = read_weights(path)
        try:
            from laion_clap import CLAP_Module
            from laion_clap.clap_module.factory import list_models

            if architecture not in list_models():
                raise InputError(
                    f"scores.clap.architecture: laion_clap has no '{architecture}'."
                    f"{nearest(architecture, list_models())} The music checkpoint is HTSAT-base."
                )
            self.module = CLAP_Module(enable_fusion=False, device=_device(), amodel=architecture)
        except OSError as error:
            raise InputError(
                "scores.clap.backend: laion_clap needs roberta-base, bert-base-uncased and "
                f"facebook/bart-base in the hub cache ({_first_line(error)}). Fetch them once with "
                "network: `hf download NAME` for each."
            ) from error
        _load_weights(self.module.model, weights, path=path, architecture=architecture)
        self.name = f"{model}/{checkpoint}" + (f"@{revision}" if revision else "")
        self.module.eval()
        hasten(self.module.model.audio_branch)
        audio = self.module.model_cfg["audio_cfg"]
        self.sampling_rate_hz = audio["sample_rate"]
        self.window_s = audio["clip_samples"] / audio["sample_rate"]
        self.dimension = self.module.model.joint_embed_shape

    def prepare(self, window: np.ndarray) -> np.ndarray:
        """Return the window as 16-bit numbers would have it, which is what laion_clap embeds."""
        clipped = np.clip(window, -1, 1)
        return ((clipped * 32767).astype(np.int16) / np.float32(32767)).astype(np.float32)

    @torch.inference_mode()
    def embed_prepared(self, batch: list[np.ndarray]) -> np.ndarray:
        """Embed windows as [N, D] float32 of norm 1."""
        size = len(batch) if torch.cuda.is_available() else _CPU_WINDOWS
        network, longer = self.module.model, torch.tensor([False])
        parts = [
            network.get_audio_embedding(
                [{"waveform": torch.from_numpy(w), "longer": longer} for w in batch[i : i + size]]
            )
            for i in range(0, len(batch), size)
        ]
        return _unit(torch.cat(parts))

    def weights(self) -> dict[str, torch.Tensor]:
        """Return the model's tensors."""
        return self.module.model.state_dict()

    @torch.no_grad()
    def embed_text(self, texts: list[str]) -> tuple[np.ndarray, np.ndarray]:
        """Embed texts as [N, D] float32 of norm 1; tell which [N] were cut at the text limit."""
        lengths = [len(ids) for ids in self.module.tokenize(texts, verbose=False)["input_ids"]]
        embedded = torch.from_numpy(self.module.get_text_embedding(texts))
        return _unit(embedded), np.array(lengths) > TEXT_TOKENS


def _fetch(model: str, checkpoint: str, revision: str | None) -> Path:
    if revision is None:
        path = Path(model) / checkpoint
        if not path.is_file():
            raise InputError(
                f"scores.clap.checkpoint: there is no file {path}. Put the checkpoint there, or "
                "give a hub id and its revision."
            )
        return path
    try:
        return Path(hf_hub_download(model, checkpoint, revision=revision))
    except (OSError, ValueError) as error:
        raise InputError(_unloadable(f"{model}/{checkpoint}", revision, error)) from error


def read_weights(path: Path) -> dict[str, torch.Tensor]:
    """Read a training checkpoint; laion_clap's own load_ckpt would unpickle anything."""
    try:
        # Beside the weights there is the optimiser, its learning rate a numpy number.
        with torch.serialization.safe_globals(_numpy_scalars()):
            content = torch.load(path, map_location="cpu", weights_only=True)
    except (OSError, RuntimeError, ValueError, EOFError, UnpicklingError) as error:
        raise InputError(
            f"scores.clap.checkpoint: {path} is not a file of weights ({_first_line(error)}). "
            "Fetch it again."
        ) from error
    weights = content.get("state_dict", content)
    return {name.removeprefix("module."): tensor for name, tensor in weights.items()}


def _load_weights(
    network: torch.nn.Module, weights: dict, *, path: Path, architecture: str
) -> None:
    position_ids = "text_branch.embeddings.position_ids"  # a buffer in transformers before 4.31
    if position_ids not in network.state_dict():
        weights.pop(position_ids, None)
    try:
        network.load_state_dict(weights)
    except RuntimeError as error:
        raise InputError(
            f"scores.clap.checkpoint: {path} does not fit architecture {architecture} "
            f"({' '.join(str(error).split())[:300]}). Check scores.clap.architecture."
        ) from error


def _numpy_scalars() -> list:
    scalar = np._core.multiarray.scalar
    return [(scalar, "numpy.core.multiarray.scalar"), scalar, np.dtype, np.dtypes.Float64DType]


def _check_directory(model: str, revision: str | None) -> None:
    if revision is None and not (Path(model) / "config.json").is_file():
        raise InputError(
            f"scores.clap.model: {model} is not a directory with a model (it has no config.json). "
            "Name one, or give a hub id together with scores.clap.revision."
        )


def _unloadable(model: str, revision: str | None, error: Exception) -> str:
    return (
        f"scores.clap.model: {model} (revision {revision}) cannot be loaded "
        f"({_first_line(error)}). Check the name and revision, the network, or HF_HOME."
    )


def _first_line(error: Exception) -> str:
    return f"{type(error).__name__}: {(str(error).strip().splitlines() or [''])[0]}"


def _device() -> str:
    return "cuda" if torch.cuda.is_available() else "cpu"


def _unit(embedded: torch.Tensor) -> np.ndarray:
    return torch.nn.functional.normalize(embedded.float(), dim=-1).cpu().numpy()
