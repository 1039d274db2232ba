"""MusicGen: captions to clips, one random stream per clip, resumable inside a shard.

**Source:** Copet et al. 2023, "Simple and Controllable Music Generation" (section 2.2: delays).
"""

import hashlib
import json
import math
import time
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import torch
from huggingface_hub import hf_hub_download
from safetensors import SafetensorError
from transformers import AutoConfig, AutoTokenizer, MusicgenConfig, MusicgenForConditionalGeneration

from conceptcaps import clips, io, results, runlog, schemas, seeding
from conceptcaps.draws import Sampling
from conceptcaps.errors import InputError
from conceptcaps.musicgen_engine import Engine

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
        _play(Generator(spec), batches, missing, sidecar, arm=arm, seed=seed, model=model)
    rows = sidecar.rows()
    kept = [
        {name: row[name] for name in schemas.AUDIO.names} for row in rows if row["status"] == "ok"
    ]
    io.write_table(output, kept, schemas.AUDIO)
    io.write_ledger(ledger, _ledger(requested, rows), min_yield=spec.min_yield)
    sidecar.close()


class Generator:
    """A MusicGen checkpoint with its tokenizer, ready to turn captions into codes and waves.

    Attributes:
        sampling_rate_hz: of the codec.
        samples: per clip, round(duration_s * sampling_rate_hz).
        frames: of codes per clip, the fewest that hold the samples.
        cut: captions so far that were longer than the text encoder reads.
    """

    def __init__(self, spec: Spec):
        """Load the checkpoint on the GPU if there is one, else on the CPU."""
        self.spec = spec
        device = "cuda" if torch.cuda.is_available() else "cpu"
        model, self.tokenizer = _load(spec)
        codec = model.config.audio_encoder
        self.sampling_rate_hz = codec.sampling_rate
        self.samples = round(spec.duration_s * codec.sampling_rate)
        hop = math.prod(codec.upsampling_ratios)  # samples a frame
        self.frames = math.ceil(self.samples / hop)
        self.engine = Engine(model, device=device, dtype=getattr(torch, spec.dtype))
        _check_fit(spec, self.engine, frames=self.frames, frame_s=hop / codec.sampling_rate)
        self.sampling = Sampling(spec.guidance_scale, spec.temperature, spec.top_k)
        self.cut = 0
        self.clips_at_once = spec.batch_size
        if device == "cuda":
            free, _ = torch.cuda.mem_get_info()
            a_clip = self.engine.cache_bytes(frames=self.frames, guided=spec.guidance_scale > 1)
            self.clips_at_once = max(1, min(spec.batch_size, int(0.85 * free / a_clip)))

    def play(self, texts: list[str], seeds: list[int]) -> np.ndarray:
        """Return waves [B, channels, samples] float32."""
        return self.waves(self.compose(texts, seeds)[0].cpu())

    def compose(self, texts: list[str], seeds: list[int]) -> tuple[torch.Tensor, torch.Tensor]:
        """Return codes [B, codebooks, frames] and the first broken step [B], -1 for none.

        As many clips at a time as fit the GPU's memory: halved when they do not.
        """
        prompts = self._tokenize(texts)
        done: list[tuple[torch.Tensor, torch.Tensor]] = []
        start = 0
        while start < len(texts):
            part = slice(start, start + self.clips_at_once)
            try:
                done.append(
                    self.engine.compose(
                        prompts[part], seeds[part], frames=self.frames, sampling=self.sampling
                    )
                )
            except torch.OutOfMemoryError as error:
                self._halve(len(prompts[part]), error)
            else:
                start = part.stop
        codes, broken = zip(*done, strict=True)
        return torch.cat(codes), torch.cat(broken)

    def waves(self, codes: torch.Tensor) -> np.ndarray:
        """Return waves [B, channels, samples] float32 of codes [B, codebooks, frames]."""
        return self.engine.decode(codes)[..., : self.samples].numpy()

    def _halve(self, clips: int, error: Exception) -> None:
        if clips == 1:
            raise InputError(
                f"audio.duration_s: one clip of {self.spec.duration_s} s does not fit the GPU's "
                f"memory ({_first_line(error)}). Shorten it, or use a larger GPU."
            ) from error
        self.clips_at_once = clips // 2
        self.engine.forget()
        torch.cuda.empty_cache()
        print(f"out of memory: from now on {self.clips_at_once} clips at a time", flush=True)

    def _tokenize(self, texts: list[str]) -> list[list[int]]:
        limit = self.tokenizer.model_max_length
        whole = self.tokenizer(texts, verbose=False)["input_ids"]
        cut = sum(len(ids) > limit for ids in whole)
        if not cut:
            return whole
        self.cut += cut
        print(f"{cut} of {len(texts)} captions were cut at {limit} tokens ({self.cut} so far)")
        return self.tokenizer(texts, truncation=True)["input_ids"]


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


def _load(spec: Spec):
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
        f"({_first_line(error)}). Check the name and revision, the network, or HF_HOME."
    )


def _first_line(error: Exception) -> str:
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


def _play(
    generator: Generator,
    batches: list[list[dict]],
    missing: list[int],
    sidecar: io.Sidecar,
    *,
    arm: str,
    seed: int,
    model: str,
) -> None:
    """Play the missing batches into the sidecar.

    On a GPU the codec and FLAC work on one batch while the engine composes the next: at most two
    batches are in memory.
    """
    overlap = generator.engine.device.type == "cuda"
    with ThreadPoolExecutor(max_workers=1) as finisher:
        behind: Future | None = None
        for index in runlog.progress(missing, what="batches"):
            started = time.monotonic()
            batch = batches[index]
            seeds = [seeding.item_seed(seed, f"audio/{arm}", row["id"]) for row in batch]
            codes, broken = generator.compose([row["caption"] for row in batch], seeds)
            facts = [
                {"id": row["id"], "seed": item_seed, "model": model}
                for row, item_seed in zip(batch, seeds, strict=True)
            ]
            work = generator, sidecar, index, facts, codes.cpu(), broken.tolist(), started
            if not overlap:  # another thread would not have the job's limit of threads
                _finish(*work)
                continue
            if behind:
                behind.result()
            behind = finisher.submit(_finish, *work)
        if behind:
            behind.result()


def _finish(
    generator: Generator,
    sidecar: io.Sidecar,
    index: int,
    facts: list[dict],
    codes: torch.Tensor,
    broken: list[int],
    started: float,
) -> None:
    """Decode and encode one batch and keep its rows."""
    waves = generator.waves(codes)
    encoded = [
        _encode(wave, clip.astype(np.int16), step, generator)
        for wave, clip, step in zip(waves, codes.numpy(), broken, strict=True)
    ]
    rows = [fact | clip for fact, clip in zip(facts, encoded, strict=True)]
    sidecar.write(index, rows)
    seconds, lost = time.monotonic() - started, sum(row["status"] != "ok" for row in rows)
    print(
        f"batch {index + 1}: {len(rows)} clips in {seconds:.1f} s "
        f"({len(rows) / seconds:.2f} clips/s), {lost} lost",
        flush=True,
    )


def _encode(wave: np.ndarray, codes: np.ndarray, broken: int, generator: Generator) -> dict:
    if broken >= 0 or not np.isfinite(wave).all():
        what = f"logits at step {broken}" if broken >= 0 else "samples"
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
        "duration_s": wave.shape[-1] / rate,
        "gain_db": gain_db,
        "sha256": clips.sha256(data),
        **clips.pack_codes(codes),
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
