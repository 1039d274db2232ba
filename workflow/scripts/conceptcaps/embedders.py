"""CLAP checkpoints as embedders: windows of audio and texts to unit vectors of one space.

**Source:** Wu et al. 2023, "Large-scale Contrastive Language-Audio Pretraining".
"""

from collections.abc import Iterable
from pathlib import Path
from pickle import UnpicklingError

import numpy as np
import torch
from huggingface_hub import hf_hub_download
from safetensors import SafetensorError

from conceptcaps import runlog
from conceptcaps.errors import InputError, nearest

TEXT_TOKENS = 77  # CLAP's context, special tokens included: longer texts are cut
_COLLAPSED_COSINE = 0.6  # mean pairwise cosine of captions at which a text tower is suspect


class TransformersClap:
    """A CLAP checkpoint in the transformers format.

    Attributes:
        sampling_rate_hz: of the waves that `embed_audio` takes.
        window_s: length of the audio that the checkpoint takes, seconds.
    """

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
        self.sampling_rate_hz = self.extractor.sampling_rate
        self.window_s = self.extractor.nb_max_samples / self.sampling_rate_hz

    @torch.inference_mode()
    def embed_audio(self, windows: list[np.ndarray]) -> np.ndarray:
        """Embed waves, each [round(window_s * sampling_rate_hz)], as [N, D] float32 of norm 1."""
        features = self.extractor(
            windows, sampling_rate=self.sampling_rate_hz, return_tensors="pt"
        )["input_features"]
        # The extractor of fusion checkpoints marks one window of a batch, drawn at random, as long.
        longer = torch.zeros(len(windows), 1, dtype=torch.bool, device=self.device)
        embedded = self.model.get_audio_features(
            input_features=features.float().to(self.device), is_longer=longer
        )
        return _unit(embedded.pooler_output)

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


class LaionClap:
    """A CLAP checkpoint in laion_clap's own format, without fusion.

    Attributes as `TransformersClap`.
    """

    def __init__(self, *, model: str, revision: str | None, checkpoint: str, architecture: str):
        """Build the architecture and load the checkpoint, on the GPU if there is one.

        Importing laion_clap loads three tokenizers from the hub cache, and building the module
        loads roberta-base, which the checkpoint then overwrites.

        Raises:
            InputError: the checkpoint or the hub models are missing, or the weights do not fit.
        """
        path = _fetch(model, checkpoint, revision)
        weights = _read_weights(path)
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
        self.module.eval()
        audio = self.module.model_cfg["audio_cfg"]
        self.sampling_rate_hz = audio["sample_rate"]
        self.window_s = audio["clip_samples"] / audio["sample_rate"]

    @torch.no_grad()
    def embed_audio(self, windows: list[np.ndarray]) -> np.ndarray:
        """Embed waves, each [round(window_s * sampling_rate_hz)], as [N, D] float32 of norm 1."""
        return _unit(torch.from_numpy(self.module.get_audio_embedding_from_data(windows)))

    @torch.no_grad()
    def embed_text(self, texts: list[str]) -> tuple[np.ndarray, np.ndarray]:
        """Embed texts as [N, D] float32 of norm 1; tell which [N] were cut at the text limit."""
        lengths = [len(ids) for ids in self.module.tokenize(texts, verbose=False)["input_ids"]]
        embedded = torch.from_numpy(self.module.get_text_embedding(texts))
        return _unit(embedded), np.array(lengths) > TEXT_TOKENS


def cut_windows(wave: np.ndarray, *, size: int) -> list[np.ndarray]:
    """Cut a wave [T] into windows [size] without overlap.

    What remains at the end is repeated to fill a window if it is half a window or more, or if it is
    all there is; else it is left out.
    """
    full = len(wave) // size
    windows = [wave[i * size : (i + 1) * size] for i in range(full)]
    rest = wave[full * size :]
    if len(rest) and (2 * len(rest) >= size or not full):
        windows.append(np.resize(rest, size))  # numpy's resize repeats
    return windows


def embed_waves(
    embedder, waves: Iterable[np.ndarray], *, clips: int, window_s: float, batch_size: int
) -> list[np.ndarray]:
    """Embed `clips` waves as one array [windows, D] each, `batch_size` windows at a time.

    Raises:
        InputError: an embedding is not finite.
    """
    size = round(window_s * embedder.sampling_rate_hz)
    counts, pending, parts = [], [], []
    for wave in runlog.progress(waves, what="clips", total=clips):
        windows = cut_windows(wave, size=size)
        counts.append(len(windows))
        pending += windows
        while len(pending) >= batch_size:
            parts.append(embedder.embed_audio(pending[:batch_size]))
            del pending[:batch_size]
    if pending:
        parts.append(embedder.embed_audio(pending))
    vectors = np.concatenate(parts)
    _check_finite(vectors, "audio")
    return np.split(vectors, np.cumsum(counts)[:-1])


def embed_texts(embedder, texts: list[str], *, batch_size: int) -> tuple[np.ndarray, np.ndarray]:
    """Embed captions as [N, D], and tell which [N] were cut; log how much they differ.

    Raises:
        InputError: an embedding is not finite.
    """
    batches = [texts[i : i + batch_size] for i in range(0, len(texts), batch_size)]
    parts = [embedder.embed_text(batch) for batch in batches]
    vectors, cut = (np.concatenate(part) for part in zip(*parts, strict=True))
    _check_finite(vectors, "text")
    print(f"{cut.sum()} of {len(texts)} captions were cut at the text limit")
    _, distinct = np.unique(texts, return_index=True)
    if len(distinct) > 1:
        cosine = mean_pairwise_cosine(vectors[distinct])
        print(f"mean pairwise cosine of {len(distinct)} captions: {cosine:.4f}")
        if cosine >= _COLLAPSED_COSINE:
            print(
                f"warning: {_COLLAPSED_COSINE} or more: the text tower may have "
                "collapsed: compare clap_score with clap_shuffled"
            )
    return vectors, cut


def mean_pairwise_cosine(vectors: np.ndarray) -> float:
    """Return the mean cosine over all pairs of different rows of unit vectors [N, D]."""
    n = len(vectors)
    total = vectors.sum(axis=0, dtype=np.float64)
    return float((total @ total - n) / (n * (n - 1)))


def pool(vectors: np.ndarray) -> np.ndarray:
    """Return the mean of a clip's window embeddings [W, D], renormalised [D]."""
    mean = vectors.mean(axis=0)
    return mean / np.linalg.norm(mean)


def _check_finite(vectors: np.ndarray, what: str) -> None:
    if not np.isfinite(vectors).all() or not vectors.any(axis=1).all():
        raise InputError(
            f"scores.clap.model: its {what} embeddings are not finite, or zero: the checkpoint is "
            "broken. Fetch it again."
        )


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


def _read_weights(path: Path) -> dict[str, torch.Tensor]:
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
