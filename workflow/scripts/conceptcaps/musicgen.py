"""MusicGen: captions to clips, one random stream per clip, resumable inside a shard.

**Source:** Copet et al. 2023, "Simple and Controllable Music Generation" (section 2.2: delays).
"""

import hashlib
import json
import math
import time
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import torch
from huggingface_hub import hf_hub_download
from safetensors import SafetensorError
from transformers import (
    AutoTokenizer,
    LogitsProcessor,
    LogitsProcessorList,
    MusicgenForConditionalGeneration,
)

from conceptcaps import clips, io, results, runlog, schemas, seeding
from conceptcaps.errors import InputError
from conceptcaps.sampling import ItemSampler

# One row per item of a batch, lost ones included, so that a resumed shard has the whole ledger.
_BATCH = pa.schema([*schemas.AUDIO, ("status", pa.string()), ("reason", pa.string())])


@dataclass(frozen=True)
class Spec:
    """Config section `audio`."""

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
    silence_dbfs: float  # dB re full scale; clips whose RMS is below are lost items
    min_yield: float  # share of items in [0, 1] that must not be lost


def generate_shard(*, captions, arm: str, spec: Spec, seed: int, output, ledger) -> None:
    """Play one shard of captions: rows of `schemas.AUDIO`, and a ledger row for every caption.

    A clip's tokens are drawn with `item_seed(seed, "audio/<arm>", id)`. Batches are consecutive
    captions; finished ones wait in `<output>.partial/`, so that a killed job goes on where it was
    and writes the same bytes. Ledger: ok, no_caption, not_finite, silent (RMS < `silence_dbfs`).

    Raises:
        InputError: the model or tokenizer is missing or unfit, the duration is beyond its
            positions, a batch does not fit the GPU, or too many items were lost.
    """
    requested = io.read_rows(captions, ["id", "caption"])
    playable = [row for row in requested if (row["caption"] or "").strip()]
    batches = [playable[i : i + spec.batch_size] for i in range(0, len(playable), spec.batch_size)]
    model = resolve_model(spec.model, spec.revision)
    key = _key(playable, arm=arm, spec=spec, seed=seed, model=model)
    sidecar = io.Sidecar(output, key=key, code=__file__, schema=_BATCH)
    missing = [index for index in range(len(batches)) if index not in sidecar]
    print(f"{output}: {len(requested)} captions, {len(missing)} of {len(batches)} batches to play")
    if missing:
        generator = Generator(spec)
        for index in runlog.progress(missing, what="batches"):
            started = time.monotonic()
            rows = _play_batch(generator, batches[index], arm=arm, seed=seed, model=model)
            sidecar.write(index, rows)
            _log_batch(index, len(batches), rows, time.monotonic() - started)
    rows = sidecar.rows()
    kept = [
        {name: row[name] for name in schemas.AUDIO.names} for row in rows if row["status"] == "ok"
    ]
    io.write_table(output, kept, schemas.AUDIO)
    io.write_ledger(ledger, _ledger(requested, rows), min_yield=spec.min_yield)
    sidecar.close()


class Generator:
    """A MusicGen checkpoint with its tokenizer, ready to turn captions into waves.

    Attributes:
        sampling_rate_hz: of the codec.
        samples: per clip, round(duration_s * sampling_rate_hz).
        steps: new tokens per codebook row: frames + codebooks - 1, for the delay pattern.
    """

    def __init__(self, spec: Spec):
        """Load the checkpoint on the GPU if there is one, else on the CPU."""
        self.spec = spec
        self.device = "cuda" if torch.cuda.is_available() else "cpu"
        self.model, self.tokenizer = _load(spec, self.device)
        codec, decoder = self.model.config.audio_encoder, self.model.config.decoder
        self.codebooks = decoder.num_codebooks
        self.sampling_rate_hz = codec.sampling_rate
        self.samples = round(spec.duration_s * codec.sampling_rate)
        self.steps = (
            math.ceil(self.samples / math.prod(codec.upsampling_ratios)) + self.codebooks - 1
        )
        _check_fit(spec, decoder, self.steps, codec)

    @torch.inference_mode()
    def play(self, texts: list[str], seeds: list[int]) -> tuple[np.ndarray, np.ndarray]:
        """Return waves [B, samples] float32 and whether all of a clip's logits were finite [B]."""
        watch = _FiniteWatch(len(texts))
        sampler = ItemSampler(
            seeds,
            rows_per_item=self.codebooks,
            temperature=self.spec.temperature,
            top_k=self.spec.top_k,
        )
        waves = self.model.generate(
            **self._tokenize(texts),
            do_sample=False,  # ItemSampler samples; the argmax of its scores is the draw
            guidance_scale=self.spec.guidance_scale,
            max_new_tokens=self.steps,
            logits_processor=_BehindGuidance([watch, sampler]),
        )  # (B, 1, T)
        return waves[:, 0, : self.samples].float().cpu().numpy(), watch.finite.cpu().numpy()

    def _tokenize(self, texts: list[str]) -> dict[str, torch.Tensor]:
        limit = self.tokenizer.model_max_length
        cut = sum(len(ids) > limit for ids in self.tokenizer(texts, verbose=False)["input_ids"])
        if cut:
            print(f"{cut} of {len(texts)} captions were cut at {limit} tokens")
        encoded = self.tokenizer(texts, padding=True, truncation=True, return_tensors="pt")
        return {name: encoded[name].to(self.device) for name in ("input_ids", "attention_mask")}


class _BehindGuidance(LogitsProcessorList):
    """Processors that see guided logits, [B * codebooks, V].

    MusicGen's `generate` appends classifier-free guidance to the caller's list, hence behind them:
    they would see conditional and unconditional rows apart. Here what is appended goes first.
    """

    def append(self, processor: LogitsProcessor) -> None:
        self.insert(0, processor)


class _FiniteWatch(LogitsProcessor):
    """Remember for each item whether all its logits were finite; change nothing."""

    def __init__(self, items: int):
        self.finite = torch.ones(items, dtype=torch.bool)

    def __call__(self, input_ids: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
        finite = scores.isfinite().reshape(len(self.finite), -1).all(dim=1)
        self.finite = self.finite.to(scores.device) & finite
        return scores


def resolve_model(model: str, revision: str | None) -> str:
    """Return what a table's `model` column says: the directory, or id@commit of a hub model.

    Raises:
        InputError: there is no such directory, or the hub model cannot be reached.
    """
    if revision is None:
        if not (Path(model) / "config.json").is_file():
            raise InputError(
                f"audio.model: {model} is not a directory with a model (it has no config.json). "
                "Name one, or give a hub id together with audio.revision."
            )
        return model
    try:
        config = hf_hub_download(model, "config.json", revision=revision)
    except (OSError, ValueError) as error:
        raise InputError(_unloadable(model, revision, error)) from error
    return f"{model}@{Path(config).parent.name}"  # .../snapshots/<commit>/config.json


def _load(spec: Spec, device: str):
    try:
        tokenizer = AutoTokenizer.from_pretrained(spec.model, revision=spec.revision)
    except (OSError, ValueError, KeyError) as error:
        raise InputError(_tokenless(spec.model, _first_line(error))) from error
    # Without tokenizer files, transformers makes up an empty tokenizer: every word is unknown.
    if (
        tokenizer.decode(tokenizer("music")["input_ids"], skip_special_tokens=True).strip()
        != "music"
    ):
        raise InputError(_tokenless(spec.model, "its vocabulary is empty"))
    try:
        model = MusicgenForConditionalGeneration.from_pretrained(
            spec.model,
            revision=spec.revision,
            dtype=getattr(torch, spec.dtype),
            use_safetensors=True,
        )
    except (OSError, ValueError, AttributeError, SafetensorError) as error:
        raise InputError(_unloadable(spec.model, spec.revision, error)) from error
    return model.to(device).eval(), tokenizer


def _tokenless(model: str, why: str) -> str:
    return (
        f"audio.model: {model} has no usable tokenizer ({why}). "
        "Save the text encoder's tokenizer in the same place."
    )


def _unloadable(model: str, revision: str | None, error: Exception) -> str:
    return (
        f"audio.model: {model} (revision {revision}) cannot be loaded as MusicGen "
        f"({_first_line(error)}). Check the name and revision, the network, or HF_HOME."
    )


def _first_line(error: Exception) -> str:
    return f"{type(error).__name__}: {str(error).strip().splitlines()[0] if str(error) else ''}"


def _check_fit(spec: Spec, decoder, steps: int, codec) -> None:
    if decoder.audio_channels != 1:
        raise InputError(f"audio.model: {spec.model} is stereo; use a mono MusicGen checkpoint.")
    if spec.guidance_scale < 1:
        raise InputError(
            f"audio.guidance_scale: {spec.guidance_scale} is below 1 (1 = no guidance)."
        )
    positions = decoder.max_position_embeddings
    if steps > positions:
        longest = (positions - decoder.num_codebooks + 1) * math.prod(codec.upsampling_ratios)
        raise InputError(
            f"audio.duration_s: {spec.duration_s} s takes {steps} positions, but {spec.model} has "
            f"{positions}: at most {longest / codec.sampling_rate:.2f} s."
        )


def _key(playable: list[dict], *, arm: str, spec: Spec, seed: int, model: str) -> str:
    settings = asdict(spec)
    del settings["min_yield"]  # decides what happens to the result, not what it is
    weights = {}
    if spec.revision is None:
        for path in sorted(Path(spec.model).glob("*.safetensors")):
            with path.open("rb") as file:
                weights[path.name] = hashlib.file_digest(file, "sha256").hexdigest()
    parts = [
        [arm, settings, seed, model, weights, results.versions("torch", "transformers")],
        [[row["id"], row["caption"]] for row in playable],
    ]
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()


def _play_batch(
    generator: Generator, batch: list[dict], *, arm: str, seed: int, model: str
) -> list[dict]:
    seeds = [seeding.item_seed(seed, f"audio/{arm}", row["id"]) for row in batch]
    try:
        waves, finite = generator.play([row["caption"] for row in batch], seeds)
    except torch.OutOfMemoryError as error:
        raise InputError(
            f"audio.batch_size: {generator.spec.batch_size} clips of {generator.spec.duration_s} s "
            f"do not fit the GPU's memory ({_first_line(error)}). Lower it."
        ) from error
    return [
        {"id": row["id"], "seed": item_seed, "model": model, **_encode(wave, ok, generator)}
        for row, item_seed, wave, ok in zip(batch, seeds, waves, finite, strict=True)
    ]


def _encode(wave: np.ndarray, finite: bool, generator: Generator) -> dict:
    if not finite or not np.isfinite(wave).all():
        what = "samples" if finite else "logits"
        return {
            "status": "not_finite",
            "reason": f"{what} that are not finite ({generator.spec.dtype})",
        }
    level = 10 * math.log10(max(float(np.mean(wave.astype(np.float64) ** 2)), 1e-30))  # dBFS
    if level < generator.spec.silence_dbfs:
        return {"status": "silent", "reason": f"RMS {level:.1f} dBFS"}
    rate = generator.sampling_rate_hz
    spec = generator.spec
    rms = None if spec.level_dbfs is None else 10 ** (spec.level_dbfs / 20)
    data, gain_db = clips.encode_flac(wave, rate, peak=10 ** (spec.peak_dbfs / 20), rms=rms)
    return {
        "audio": {"bytes": data, "path": None},
        "sampling_rate": rate,
        "duration_s": len(wave) / rate,
        "gain_db": gain_db,
        "sha256": clips.sha256(data),
        "status": "ok",
        "reason": "",
    }


def _ledger(requested: list[dict], rows: list[dict]) -> list[dict]:
    played = {row["id"]: row for row in rows}
    lost = {"status": "no_caption", "reason": "the caption is empty"}
    return [
        {"id": row["id"], **{name: played.get(row["id"], lost)[name] for name in lost}}
        for row in requested
    ]


def _log_batch(index: int, of: int, rows: list[dict], seconds: float) -> None:
    lost = sum(row["status"] != "ok" for row in rows)
    print(
        f"batch {index + 1} of {of}: {len(rows)} clips in {seconds:.1f} s "
        f"({len(rows) / seconds:.2f} clips/s), {lost} lost",
        flush=True,
    )
