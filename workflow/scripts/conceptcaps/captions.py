"""Captions of tag sets, arm by arm and shard by shard, each with its own random stream."""

import hashlib
import json
import re
from dataclasses import asdict
from pathlib import Path

from conceptcaps import arms, chatmodel, decoding, io, runlog, schemas, seeding
from conceptcaps.chatmodel import Base
from conceptcaps.decoding import Spec
from conceptcaps.errors import InputError, nearest
from conceptcaps.gate import Gate, Verdict

SENTENCE_END = re.compile(r"[.!?][\"')]*(?=\s|$)")


def generate_shard(
    *,
    tags: str | Path,
    shard: int,
    shard_items: int,
    items: int,
    arm: str,
    adapter: str | Path | None,
    base: Base,
    spec: Spec,
    gate: Gate,
    seed: int,
    output: str | Path,
    ledger: str | Path,
    drafts: str | Path,
) -> None:
    """Write the captions of rows [shard * shard_items, ...) of the first `items` tag sets.

    An item whose draft the gate refuses is drawn again, until one passes or the budget is spent. A
    draft's tokens depend on `seed`, the arm, the attempt, its id and its tags; in float32, neither
    batch nor shard moves a byte. A shard that was killed goes on behind its last finished batch.

    Args:
        tags: table `schemas.TAGS`; `schemas.PAIRS` for the arms on MusicCaps' own tags.
        shard: number of the shard, from 0.
        shard_items: tag sets a shard; the last one may have fewer.
        items: tag sets up to here: of the arm in all, or to the end of this shard.
        arm: one of `arms.SOURCE` that a model writes.
        adapter: the adapter's directory, for the fine-tuned arm.
        base: the model.
        spec: how captions are drawn.
        gate: what passes, and how many drafts an item has.
        seed: global seed.
        output: table `schemas.CAPTIONS` to write: the captions that passed, in the items' order.
        ledger: table `schemas.LEDGER` to write: every item, "ok" or why its last draft failed.
        drafts: table `schemas.DRAFTS` to write: everything that was written, and why it failed.

    Raises:
        InputError: there are no such rows, or fewer than `spec.min_yield` of them got a caption.
    """
    first, last = shard * shard_items, min((shard + 1) * shard_items, items)
    requests = shard_rows(tags, first, last, ["id", "aspect_list"])
    writer = _Writer(requests, arm, adapter, base, spec, gate.spec, seed, output)
    pending, kept, account, written = requests, {}, {}, []
    for attempt in range(gate.spec.drafts):
        tags_of = {item["id"]: item["aspect_list"] for item in pending}
        for row in writer.write(pending, attempt):
            verdict = gate.judge(row["caption"], tags_of[row["id"]])
            written.append({**row, "attempt": attempt, **_judged(verdict)})
            reason = verdict.reason
            if verdict.status == "ok":
                kept[row["id"]] = row
            elif gate.spec.drafts > 1:
                reason = f"none of {gate.spec.drafts} drafts passed; the last: {reason}"
            account[row["id"]] = {"id": row["id"], "status": verdict.status, "reason": reason}
        pending = [item for item in pending if item["id"] not in kept]
        if not pending:
            break
    ids = [item["id"] for item in requests]
    first_ok = sum(row["status"] == "ok" for row in written[: len(ids)])
    print(f"{first_ok} of {len(ids)} first drafts pass, {len(kept)} after {attempt + 1} attempts")
    io.write_table(output, [kept[i] for i in ids if i in kept], schemas.CAPTIONS)
    io.write_table(drafts, [_only(row, schemas.DRAFTS) for row in written], schemas.DRAFTS)
    io.write_ledger(ledger, [account[i] for i in ids], min_yield=spec.min_yield)
    writer.sidecar.close()


def shard_rows(table: str | Path, first: int, last: int, columns: list[str]) -> list[dict]:
    """Return rows [first, last) of a table of tag sets.

    Raises:
        InputError: they are not all there.
    """
    rows = io.read_rows(table, columns)[first:last]
    if len(rows) < last - first or not rows:
        raise InputError(
            f"{table}: has no rows {first} to {last - 1}. Remake it if tags.items has grown; "
            "MusicCaps' own tag sets may be fewer than arms.compared_items: lower that."
        )
    return rows


def _judged(verdict: Verdict) -> dict:
    return {
        "status": verdict.status,
        "reason": verdict.reason,
        "tag_recall": verdict.recall,
    }


def _only(row: dict, schema) -> dict:
    return {name: row[name] for name in schema.names}


def generate_heldout(
    *,
    pairs: str | Path,
    items: int,
    arm: str,
    adapter: str | Path | None,
    base: Base,
    spec: Spec,
    seed: int,
    output: str | Path,
) -> None:
    """Write captions for the tags of the first `items` pairs of split "test", or of all of them.

    Every pair gets a row, under the pair's id: its first draft, as the gate would not see it; it
    may be empty. See `generate_shard` for the arguments.

    Raises:
        InputError: there are no test pairs.
    """
    requests = heldout_rows(pairs, items, ["id", "aspect_list", "split"])
    writer = _Writer(requests, arm, adapter, base, spec, None, seed, output)
    io.write_table(output, writer.write(requests, 0), schemas.CAPTIONS)
    writer.sidecar.close()


def heldout_rows(pairs: str | Path, items: int, columns: list[str]) -> list[dict]:
    """Return the first `items` pairs of split "test", or all of them.

    Raises:
        InputError: there are none.
    """
    rows = [row for row in io.read_rows(pairs, columns) if row["split"] == "test"][:items]
    if not rows:
        raise InputError(f"{pairs}: there are no pairs of split 'test'. See distill.heldout.")
    return rows


class _Writer:
    """Write drafts, batch by batch, into a sidecar that outlives a kill."""

    def __init__(self, requests, arm, adapter, base, spec, gate, seed, output):
        if arm not in arms.SOURCE:
            raise InputError(
                f"arm '{arm}': one of {', '.join(arms.SOURCE)}.{nearest(arm, arms.SOURCE)}"
            )
        self.arm, self.base, self.spec, self.seed = arm, base, spec, seed
        self.adapter = str(adapter) if adapter else None
        self.prompts = chatmodel.read_prompts(base.prompts, None if arm in arms.OWN else arm)
        key = _key(requests, arm, self.adapter, base, spec, gate, seed)
        self.sidecar = io.Sidecar(output, key=key, code=__file__, schema=schemas.CAPTIONS)
        self.written = 0  # batches so far: the same order in every run, so their numbers are too
        self.engine = None

    def write(self, requests: list[dict], attempt: int) -> list[dict]:
        """Return a row for each request, in order; a batch holds prompts alike in length."""
        length = [len(", ".join(item["aspect_list"])) for item in requests]
        order = sorted(range(len(requests)), key=lambda i: (length[i], i))
        size = self.spec.batch_size
        starts = range(0, len(order), size)
        rows = {}
        what = f"captions of arm {self.arm}, attempt {attempt}, batches"
        for start in runlog.progress(starts, what=what):
            batch = [requests[i] for i in order[start : start + size]]
            if not self._finished(batch, attempt):
                self.sidecar.write(self.written, self._draw(batch, attempt))
            rows.update((row["id"], row) for row in self.sidecar.read(self.written))
            self.written += 1
        return [rows[item["id"]] for item in requests]

    def _finished(self, batch: list[dict], attempt: int) -> bool:
        """Tell whether the next batch holds just these items, drawn in this attempt.

        What is drawn again depends on verdicts, and the key does not hold the files of the gate.
        """
        if self.written not in self.sidecar:
            return False
        kept = self.sidecar.read(self.written, ["id", "seed"])
        return {row["id"]: row["seed"] for row in kept} == self._seeds(batch, attempt)

    def _seeds(self, batch: list[dict], attempt: int) -> dict[str, int]:
        stage = f"caption/{self.arm}" + (f"/{attempt}" if attempt else "")
        return {item["id"]: seeding.item_seed(self.seed, stage, item["id"]) for item in batch}

    def _draw(self, batch: list[dict], attempt: int) -> list[dict]:
        base = self.base
        if self.engine is None:
            self.engine = decoding.engine(base, self.adapter, self.spec)
        name = f"{base.model}@{base.revision}" if base.revision else base.model
        name += "+adapter" if self.adapter else ""
        seeds = list(self._seeds(batch, attempt).values())
        chats = [
            chatmodel.messages(
                self.prompts, None if self.arm == "zero_shot" else item["aspect_list"]
            )
            for item in batch
        ]
        answers = self.engine.answer(chats, seeds)
        return [
            {
                "id": item["id"],
                "caption": clean(answer.text, finished=answer.finished),
                "prompt": chat[-1]["content"],
                "n_tokens": answer.n_tokens,
                "seed": seed,
                "model": name,
            }
            for item, chat, seed, answer in zip(batch, chats, seeds, answers, strict=True)
        ]


def clean(text: str, *, finished: bool) -> str:
    """Return the first paragraph of an answer, without quotes and without an unfinished sentence.

    A first paragraph that ends with a colon announces the caption and is not part of it.

    Args:
        text: the decoded answer.
        finished: the model ended the answer itself, not the length limit.
    """
    paragraphs = [line.strip() for line in text.strip().splitlines() if line.strip()]
    if len(paragraphs) > 1 and paragraphs[0].endswith(":"):
        paragraphs = paragraphs[1:]
    if not paragraphs:
        return ""
    caption = paragraphs[0]
    if not finished and len(paragraphs) == 1:
        ends = [match.end() for match in SENTENCE_END.finditer(caption)]
        caption = caption[: ends[-1]] if ends else ""
    if len(caption) > 1 and caption[0] == caption[-1] == '"':
        caption = caption[1:-1].strip()
    return caption


def _key(requests, arm, adapter, base, spec, gate, seed) -> str:
    """Return a hash of all that the captions depend on; the gate says what is drawn again."""
    facts = {
        "requests": [[item["id"], item["aspect_list"]] for item in requests],
        "arm": arm,
        "adapter": _file_hashes(adapter) if adapter else None,
        "spec": {k: v for k, v in asdict(spec).items() if k != "min_yield"},
        "gate": asdict(gate) if gate else None,
        "seed": seed,
        **chatmodel.identity(base),
    }
    return hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()


def _file_hashes(directory: str | Path) -> dict[str, str]:
    files = sorted(f for f in Path(directory).glob("*") if f.is_file() and f.name[0] != ".")
    return {f.name: hashlib.sha256(f.read_bytes()).hexdigest() for f in files}
