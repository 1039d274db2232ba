"""Captions of tag sets, arm by arm and shard by shard, each with its own random stream."""

import hashlib
import json
import re
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from transformers import GenerationConfig, LogitsProcessorList

from conceptcaps import chatmodel, io, results, runlog, schemas, seeding
from conceptcaps.chatmodel import Base
from conceptcaps.errors import InputError
from conceptcaps.sampling import ItemSampler

ARMS = ("conceptcaps", "base", "zero_shot")
SENTENCE_END = re.compile(r"[.!?][\"')]*(?=\s|$)")


@dataclass(frozen=True)
class Spec:
    """How captions are drawn (config: captioner.generate)."""

    batch_size: int  # prompts decoded together
    max_new_tokens: int
    temperature: float  # 0 is greedy
    top_p: float  # nucleus probability, in (0, 1]
    min_words: int  # shorter captions are lost items
    min_yield: float  # share of items, in [0, 1]


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
    seed: int,
    output: str | Path,
    ledger: str | Path,
) -> None:
    """Write the captions of rows [shard * shard_items, ...) of the first `items` tag sets.

    An item's tokens depend on `seed`, the arm, its id and its tags. A shard that was killed goes on
    behind its last finished batch and ends with the same bytes.

    Args:
        tags: table `schemas.TAGS`.
        shard: number of the shard, from 0.
        shard_items: tag sets a shard; the last one may have fewer.
        items: tag sets up to here: of the arm in all, or to the end of this shard.
        arm: "conceptcaps" (fine-tuned), "base" (not tuned) or "zero_shot" (not tuned, no tags).
        adapter: the adapter's directory, for the fine-tuned arm.
        base: the model.
        spec: how captions are drawn.
        seed: global seed.
        output: table `schemas.CAPTIONS` to write: captions of at least `spec.min_words` words.
        ledger: table `schemas.LEDGER` to write: every item, "ok" or "too_short".

    Raises:
        InputError: there are no such rows, or fewer than `spec.min_yield` of them got a caption.
    """
    first, last = shard * shard_items, min((shard + 1) * shard_items, items)
    requests = io.read_rows(tags, ["id", "aspect_list"])[first:last]
    if len(requests) < last - first or not requests:
        raise InputError(
            f"{tags}: has no rows {first} to {last - 1}. Remake it: tags.items has grown."
        )
    rows, sidecar = _write(requests, arm, adapter, base, spec, seed, output)
    kept = [row for row in rows if _words(row) >= spec.min_words]
    io.write_table(output, kept, schemas.CAPTIONS)
    io.write_ledger(ledger, [_account(row, spec) for row in rows], min_yield=spec.min_yield)
    sidecar.close()


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

    Every pair gets a row, under the pair's id; its caption may be empty. See `generate_shard` for
    the arguments.

    Raises:
        InputError: there are no test pairs.
    """
    columns = ["id", "aspect_list", "split"]
    requests = [row for row in io.read_rows(pairs, columns) if row["split"] == "test"][:items]
    if not requests:
        raise InputError(f"{pairs}: there are no pairs of split 'test'. See distill.heldout.")
    rows, sidecar = _write(requests, arm, adapter, base, spec, seed, output)
    io.write_table(output, rows, schemas.CAPTIONS)
    sidecar.close()


def _write(requests, arm, adapter, base, spec, seed, output) -> tuple[list[dict], io.Sidecar]:
    """Return the rows of all requests, in order, and the sidecar that holds them until closed."""
    if arm not in ARMS:
        raise InputError(f"arm '{arm}': one of {', '.join(ARMS)}.")
    adapter = str(adapter) if adapter else None
    prompts = chatmodel.read_prompts(base.prompts)
    key = _key(requests, arm, adapter, base, spec, seed, prompts)
    sidecar = io.Sidecar(output, key=key, code=__file__, schema=schemas.CAPTIONS)
    size = spec.batch_size
    batches = [requests[start : start + size] for start in range(0, len(requests), size)]
    pending = [index for index in range(len(batches)) if index not in sidecar]
    if pending:
        model, tokenizer = chatmodel.load(base, adapter)
        name = f"{base.model}@{base.revision}" if base.revision else base.model
        name += "+adapter" if adapter else ""
        for index in runlog.progress(pending, what=f"captions of arm {arm}, batches"):
            rows = _caption(batches[index], arm, model, tokenizer, prompts, spec, seed)
            sidecar.write(index, [{**row, "model": name} for row in rows])
    return sidecar.rows(), sidecar


def _caption(batch, arm, model, tokenizer, prompts, spec, seed) -> list[dict]:
    chats = [
        chatmodel.messages(prompts, None if arm == "zero_shot" else item["aspect_list"])
        for item in batch
    ]
    seeds = [seeding.item_seed(seed, f"caption/{arm}", item["id"]) for item in batch]
    sampler = ItemSampler(seeds, temperature=spec.temperature, top_p=spec.top_p)
    inputs = chatmodel.encode(tokenizer, chats).to(model.device)
    stops = model.generation_config.eos_token_id
    with torch.inference_mode():
        tokens = model.generate(
            **inputs,
            generation_config=GenerationConfig(
                do_sample=False,  # the sampler's noise makes the argmax a draw
                max_new_tokens=spec.max_new_tokens,
            ),
            logits_processor=LogitsProcessorList([sampler]),
        )
    answers = tokens[:, inputs["input_ids"].shape[1] :].tolist()
    rows = []
    for item, chat, item_seed, answer in zip(batch, chats, seeds, answers, strict=True):
        end = next((i for i, token in enumerate(answer) if token in stops), None)
        text = tokenizer.decode(
            answer[:end], skip_special_tokens=True, clean_up_tokenization_spaces=False
        )
        rows.append(
            {
                "id": item["id"],
                "caption": clean(text, finished=end is not None),
                "prompt": chat[-1]["content"],
                "n_tokens": len(answer[:end]),
                "seed": item_seed,
            }
        )
    return rows


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


def _words(row: dict) -> int:
    return len(row["caption"].split())


def _account(row: dict, spec: Spec) -> dict:
    if _words(row) >= spec.min_words:
        return {"id": row["id"], "status": "ok", "reason": ""}
    reason = f"{_words(row)} words, captioner.generate.min_words is {spec.min_words}"
    return {"id": row["id"], "status": "too_short", "reason": reason}


def _key(requests, arm, adapter, base, spec, seed, prompts) -> str:
    """Return a hash of all that the captions depend on; min_words and min_yield come after them."""
    drawn = {k: v for k, v in asdict(spec).items() if k not in ("min_words", "min_yield")}
    facts = {
        "requests": [[item["id"], item["aspect_list"]] for item in requests],
        "arm": arm,
        "adapter": _file_hashes(adapter) if adapter else None,
        "base": asdict(base),
        "local_files": _file_stamps(base.model) if base.revision is None else None,
        "prompts": prompts,
        "spec": drawn,
        "seed": seed,
        "versions": results.versions("torch", "transformers", "peft", "bitsandbytes"),
        "device": "cuda" if torch.cuda.is_available() else "cpu",
    }
    return hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()


def _file_hashes(directory: str | Path) -> dict[str, str]:
    return {f.name: hashlib.sha256(f.read_bytes()).hexdigest() for f in _files(directory)}


def _file_stamps(directory: str | Path) -> dict[str, list[int]]:
    """Return sizes and times: a base model has too many bytes to be hashed for every shard."""
    return {f.name: [f.stat().st_size, f.stat().st_mtime_ns] for f in _files(directory)}


def _files(directory: str | Path) -> list[Path]:
    found = Path(directory).glob("*")
    return sorted(f for f in found if f.is_file() and not f.name.startswith("."))
