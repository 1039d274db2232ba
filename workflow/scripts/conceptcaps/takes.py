"""Play one shard of captions: takes of every clip until one is fit; resumable inside the shard.

Takes are played in rounds: every caption once, then those whose take was not fit once more with
another seed, and so on. Each batch of each round waits in the shard's sidecar when it is finished,
and what is read back is the account of it alone: one batch of audio is in memory at a time.
"""

import hashlib
import json
import time
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import asdict
from pathlib import Path

import numpy as np
import pyarrow as pa
import torch

from conceptcaps import clipquality, clips, io, musicgen, results, runlog, schemas, seeding

_ROWS_TOGETHER = 32  # of the finished table, in a row group
_CUT = "the caption is longer than the text encoder reads: its end is not heard"
_ACCOUNT = [name for name in schemas.TAKES.names if name != "attempt"]
# One row per take of a batch, unfit ones included, so that a resumed shard has the whole ledger.
_BATCH = pa.schema(
    [
        *schemas.AUDIO,
        *[schemas.TAKES.field(name) for name in _ACCOUNT if name not in schemas.AUDIO.names],
    ]
)


def generate_shard(
    *, captions, arm: str, spec: musicgen.Spec, seed: int, output, ledger, takes
) -> None:
    """Play one shard of captions: rows of `schemas.AUDIO`, and a ledger row for every caption.

    A clip's tokens are drawn with `item_seed(seed, "audio/<arm>", id)`; those of its k-th further
    take with "audio/<arm>/<k>". Batches are consecutive captions; finished ones wait in
    `<output>.partial/`, so that a killed job goes on where it was and writes the same bytes.
    Ledger: ok, no_caption, not_finite, duplicate (the codes of an earlier clip of the shard), or
    what `clipquality.judge` says of the last take. The reason of an ok clip is empty, or says that
    its caption is longer than the text encoder reads.

    Args:
        captions: table with id and caption.
        arm: whose captions these are.
        spec: model, sampling, level, limits.
        seed: global seed.
        output: table `schemas.AUDIO` to write.
        ledger: table `schemas.LEDGER` to write.
        takes: table `schemas.TAKES` to write: everything that was played, and what was measured.

    Raises:
        InputError: the model or tokenizer is missing or unfit, the duration is beyond its
            positions, a clip does not fit the GPU, or too many items were lost.
    """
    requested = io.read_rows(captions, ["id", "caption"])
    playable = [row for row in requested if (row["caption"] or "").strip()]
    player = _Player(playable, arm=arm, spec=spec, seed=seed, output=output)
    print(f"{output}: {len(requested)} captions, {len(playable)} of them to play")
    lost = {"status": "no_caption", "reason": "the caption is empty"}
    account = {row["id"]: {"id": row["id"], **lost} for row in requested}
    pending, written, places, heard = playable, [], {}, {}
    # without chance every take of a caption is the same
    budget = spec.quality.takes if spec.temperature > 0 else 1
    for attempt in range(budget):
        if not pending:
            break
        for row, place in player.round(pending, attempt):
            if row["status"] == "ok" and row["codes_sha256"] in heard:
                row |= {
                    "status": "duplicate",
                    "reason": f"the same codes as clip {heard[row['codes_sha256']]}",
                }
            written.append({**row, "attempt": attempt})
            reason = row["reason"]
            if row["status"] == "ok":
                heard[row["codes_sha256"]] = row["id"]
                places[row["id"]] = place
                reason = _CUT if row["text_truncated"] else ""
            elif budget > 1:
                reason = f"none of {budget} takes is fit; the last: {reason}"
            account[row["id"]] = {"id": row["id"], "status": row["status"], "reason": reason}
        pending = [row for row in pending if row["id"] not in places]
    cut = len({row["id"] for row in written if row["text_truncated"]})
    if cut:
        print(f"{cut} captions are longer than the text encoder reads: their ends are not heard")
    print(f"{len(places)} clips are fit, after {len(written)} takes of {len(playable)} captions")
    order = [places[row["id"]] for row in playable if row["id"] in places]
    io.write_stream(output, player.clips(order), schemas.AUDIO)
    io.write_table(takes, written, schemas.TAKES)
    io.write_ledger(ledger, list(account.values()), min_yield=spec.min_yield)
    player.sidecar.close()


def stage(arm: str, attempt: int) -> str:
    """Return the name that the seeds of an arm's takes are derived with."""
    return f"audio/{arm}/{attempt}" if attempt else f"audio/{arm}"


class _Player:
    """Plays rounds of a shard, batch after batch, and remembers them in the shard's sidecar."""

    def __init__(self, playable: list[dict], *, arm: str, spec, seed: int, output):
        self.arm, self.spec, self.seed = arm, spec, seed
        self.model = musicgen.resolve_model(spec.model, spec.revision)
        key = _key(playable, arm=arm, spec=spec, seed=seed, model=self.model)
        self.sidecar = io.Sidecar(output, key=key, code=__file__, schema=_BATCH)
        self.generator: musicgen.Generator | None = None
        self.batches = 0  # of the rounds so far

    def round(self, pending: list[dict], attempt: int) -> list[tuple[dict, tuple[int, int]]]:
        """Play each caption once; return its account and its (batch, row) in the sidecar."""
        size, first = self.spec.batch_size, self.batches
        batches = [pending[i : i + size] for i in range(0, len(pending), size)]
        self.batches += len(batches)
        missing = [k for k, batch in enumerate(batches) if not self._finished(first + k, batch)]
        print(f"take {attempt + 1}: {len(missing)} of {len(batches)} batches to play", flush=True)
        if missing:
            self._play({first + k: batches[k] for k in missing}, attempt)
        return [
            (row, (first + k, at))
            for k in range(len(batches))
            for at, row in enumerate(self.sidecar.read(first + k, _ACCOUNT))
        ]

    def clips(self, places: list[tuple[int, int]]) -> Iterator[list[dict]]:
        """Yield the rows of `schemas.AUDIO` at these places, some at a time."""
        opened = {}  # the last batch of each round's part of the sidecar: at most two or three
        for start in range(0, len(places), _ROWS_TOGETHER):
            rows = []
            for batch, at in places[start : start + _ROWS_TOGETHER]:
                if batch not in opened:
                    if len(opened) == 2:
                        opened.pop(next(iter(opened)))
                    opened[batch] = self.sidecar.read(batch)
                rows.append({name: opened[batch][at][name] for name in schemas.AUDIO.names})
            yield rows

    def _finished(self, index: int, batch: list[dict]) -> bool:
        """Tell whether batch `index` holds just these items: rounds depend on those before."""
        if index not in self.sidecar:
            return False
        return [row["id"] for row in self.sidecar.read(index, ["id"])] == [r["id"] for r in batch]

    def _play(self, batches: dict[int, list[dict]], attempt: int) -> None:
        """Play batches into the sidecar.

        On a GPU the codec and FLAC work on one batch while the next is composed: at most two
        batches are in memory.
        """
        self.generator = self.generator or musicgen.load_generator(self.spec)
        overlap = self.generator.device == "cuda"
        with ThreadPoolExecutor(max_workers=1) as finisher:
            behind: Future | None = None
            for index, batch in runlog.progress(batches.items(), what="batches"):
                started = time.monotonic()
                seeds = [
                    seeding.item_seed(self.seed, stage(self.arm, attempt), row["id"])
                    for row in batch
                ]
                captions = [row["caption"] for row in batch]
                codes, broken = self.generator.compose(captions, seeds)
                truncated = self.generator.truncated(captions)
                facts = [
                    {"id": row["id"], "seed": own, "model": self.model, "text_truncated": cut}
                    for row, own, cut in zip(batch, seeds, truncated, strict=True)
                ]
                work = index, facts, codes.cpu(), broken.tolist(), started
                if not overlap:  # another thread would not have the job's limit of threads
                    self._finish(*work)
                    continue
                if behind:
                    behind.result()
                behind = finisher.submit(self._finish, *work)
            if behind:
                behind.result()

    def _finish(
        self, index: int, facts: list[dict], codes: torch.Tensor, broken: list[int], started: float
    ) -> None:
        """Decode, judge and encode one batch and keep its rows."""
        waves = self.generator.waves(codes)
        encoded = [
            _encode(wave, clip.astype(np.int16), step, self.generator)
            for wave, clip, step in zip(waves, codes.numpy(), broken, strict=True)
        ]
        rows = [fact | clip for fact, clip in zip(facts, encoded, strict=True)]
        self.sidecar.write(index, rows)
        seconds, unfit = time.monotonic() - started, sum(row["status"] != "ok" for row in rows)
        print(
            f"batch {index + 1}: {len(rows)} clips in {seconds:.1f} s "
            f"({len(rows) / seconds:.2f} clips/s), {unfit} unfit",
            flush=True,
        )


def _encode(wave: np.ndarray, codes: np.ndarray, broken: int, generator) -> dict:
    """Return what a wave [channels, T] and its codes are stored as, and how they are judged."""
    packed, spec = clips.pack_codes(codes), generator.spec
    if broken >= 0 or not np.isfinite(wave).all():
        what = f"logits at step {broken}" if broken >= 0 else "samples"
        return {
            "status": "not_finite",
            "reason": f"{what} that are not finite ({spec.dtype})",
            "codes_sha256": packed["codes_sha256"],
        }
    rate = generator.sampling_rate_hz
    measures = clipquality.measure(
        wave, codes, rate_hz=rate, silence_dbfs=spec.quality.silence_dbfs
    )
    rms = None if spec.level_dbfs is None else 10 ** (spec.level_dbfs / 20)
    data, gain_db = clips.encode_flac(wave, rate, peak=10 ** (spec.peak_dbfs / 20), rms=rms)
    status, reason = clipquality.judge(
        measures, spec.quality, samples=generator.samples, gain_db=gain_db
    )
    facts = {"status": status, "reason": reason, **asdict(measures), **packed}
    del facts["samples"]
    if status != "ok":  # the account is kept, the sound is not
        return {name: facts[name] for name in _ACCOUNT if name in facts}
    return facts | {
        "audio": {"bytes": data, "path": None},
        "sampling_rate": rate,
        "duration_s": wave.shape[-1] / rate,
        "gain_db": gain_db,
        "sha256": clips.sha256(data),
    }


def _key(playable: list[dict], *, arm: str, spec, seed: int, model: str) -> str:
    settings = asdict(spec)
    del settings["min_yield"]  # decides what happens to the result, not what it is
    weights = {}
    if spec.revision is None:
        for path in sorted(p for p in Path(spec.model).iterdir() if p.suffix in musicgen.WEIGHTS):
            with path.open("rb") as file:
                weights[path.name] = hashlib.file_digest(file, "sha256").hexdigest()
    parts = [
        [arm, settings, seed, model, weights, results.versions("torch", "transformers")],
        [[row["id"], row["caption"]] for row in playable],
    ]
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()
