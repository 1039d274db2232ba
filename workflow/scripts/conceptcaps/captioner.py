"""Teach a chat model to write captions from tags: QLoRA (paper section 3.6), and proof of it."""

import gc
import hashlib
import json
from dataclasses import asdict
from pathlib import Path

import datasets
import torch
from datasets import Dataset
from peft import PeftModel

from conceptcaps import chatmodel, io, results, schemas, seeding
from conceptcaps.chatmodel import Base
from conceptcaps.errors import InputError
from conceptcaps.finetuning import Finetune, last_checkpoint, loss_curve, make_trainer

PROBES = (  # tag sets whose next-token logits show whether an adapter does anything
    ["jazz", "piano", "slow tempo"],
    ["rock", "energetic", "drums", "fast tempo"],
    ["classical", "strings", "calm"],
)


def finetune(
    *,
    pairs: str | Path,
    base: Base,
    spec: Finetune,
    seed: int,
    adapter: str | Path,
    metrics: str | Path,
    history: str | Path,
) -> None:
    """Train a LoRA adapter on the quantised model to write the human captions of tag sets (QLoRA).

    Loss: mean negative log-likelihood (nats a token) of the caption and its end of turn; prompt
    tokens carry no loss. Every epoch shows the pairs in another order, and each pair's tags in
    another order, both drawn from `seed`. The adapter is that of the least validation loss among
    `spec.evaluations` looks, the last at the end. Every look leaves a checkpoint in
    `<adapter>.partial/`: training that was killed goes on from there with the same data, weights,
    optimiser and random state. Pairs that do not fit are left out, never cut: a cut caption teaches
    not to end.

    Args:
        pairs: table `schemas.PAIRS`; split "train" is learned, "validation" only measured.
        base: the model.
        spec: the training's numbers.
        seed: global seed.
        adapter: directory to write; it appears only when the adapter has been read back from disk
            and shown to change the model's logits.
        metrics: JSON file to write: losses and the logit difference.
        history: table `schemas.FINETUNING` to write: the loss of every step.

    Raises:
        InputError: a split is empty, pairs do not fit, the loss is not finite, memory runs out, or
            the adapter changes the logits by less than `spec.min_logit_difference`.

    **Source:** Dettmers et al. 2023 (QLoRA); paper section 3.6.
    **Differs:** the paper's code loses its completion mask in the collator, never passes its
    compute type to the quantiser, and uses an untrained adapter: see the checks here.
    """
    seeding.seed_everything(seed)
    datasets.disable_progress_bars()  # they would fill the log
    prompts = chatmodel.read_prompts(base.prompts)
    train = _drawn(_split(pairs, "train"), spec.max_pairs, seed)
    validation = _drawn(_split(pairs, "validation"), spec.max_validation_pairs, seed)
    key = _key(train, validation, base, spec, seed)
    sidecar = io.Sidecar(adapter, key=key, code=__file__)
    model, tokenizer = chatmodel.load(base)
    trainer = make_trainer(
        model=model,
        tokenizer=tokenizer,
        train=training_rows(train, prompts, epochs=spec.epochs, seed=seed),
        validation=training_rows(validation, prompts, epochs=1, seed=seed),
        base=base,
        spec=spec,
        seed=seed,
        sidecar=sidecar,
    )
    with chatmodel.memory("captioner.finetune.batch_size", "raise gradient_accumulation for it"):
        before = trainer.evaluate()["eval_loss"]
        trainer.train(resume_from_checkpoint=last_checkpoint(sidecar.directory))
    log = loss_curve(trainer.state.log_history, before=before, spec=spec, pairs=len(train))
    config = trainer.model.active_peft_config
    config.target_modules = sorted(config.target_modules)  # a set, saved in another order each time
    sidecar.lock.check()
    with io.atomic(adapter) as directory:
        # The automatic choice asks the hub whether the vocabulary grew; it cannot have.
        trainer.model.save_pretrained(directory, save_embedding_layers=False)
        (directory / "README.md").unlink(missing_ok=True)  # PEFT's empty model card
        n_rows, n_validation = len(trainer.train_dataset), len(trainer.eval_dataset)
        del trainer, model
        gc.collect()
        torch.cuda.empty_cache()
        difference = _proven_difference(base, directory, prompts, spec)
    io.write_table(history, log, schemas.FINETUNING)
    looks = [row for row in log if row["validation_loss"] is not None]
    best = min(looks[1:], key=lambda row: row["validation_loss"])
    trained = [row["loss"] for row in log if row["loss"] is not None]
    recipe = _recipe(base, spec, seed)
    results.write_metrics(
        metrics,
        [
            _metric("train_loss", sum(trained) / len(trained), n_rows, "lower", recipe),
            _metric("eval_loss_before", before, n_validation, "lower", recipe),
            _metric("eval_loss", best["validation_loss"], n_validation, "lower", recipe),
            _metric("eval_loss_last", looks[-1]["validation_loss"], n_validation, "lower", recipe),
            _metric("best_step", best["step"], len(trained), "none", recipe),
            _metric("adapter_logit_difference", difference, len(PROBES), "none", recipe),
        ],
    )
    sidecar.close()


def _key(train, validation, base: Base, spec: Finetune, seed: int) -> str:
    """Return a hash of all that the training depends on."""
    gates = ("min_logit_difference", "min_yield")
    facts = {
        "pairs": [
            [(p["id"], p["aspect_list"], p["caption"]) for p in s] for s in (train, validation)
        ],
        "spec": {k: v for k, v in asdict(spec).items() if k not in gates},
        "seed": seed,
        **chatmodel.identity(base),
        "trl": results.versions("trl"),
    }
    return hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()


def _metric(name, value, n, direction, recipe) -> results.MetricResult:
    return results.MetricResult(name, float(value), None, None, n, direction, recipe)


def _drawn(pairs: list[dict], most: int | None, seed: int) -> list[dict]:
    """Return `most` of the pairs, drawn at random, in their order; all where there are fewer."""
    if most is None or len(pairs) <= most:
        return pairs
    rows = seeding.item_rng(seed, "captioner", "pairs").permutation(len(pairs))[:most]
    return [pairs[row] for row in sorted(rows)]


def _split(pairs: str | Path, name: str) -> list[dict]:
    rows = [r for r in io.read_rows(pairs) if r["split"] == name]
    if not rows:
        raise InputError(f"{pairs}: there are no pairs of split '{name}'. See distill.heldout.")
    return rows


def training_rows(pairs: list[dict], prompts: dict[str, str], *, epochs: int, seed: int) -> Dataset:
    """Return conversational prompt/completion rows, epoch after epoch, in the order of training."""
    rows = []
    for epoch in range(epochs):
        order = seeding.item_rng(seed, "finetune_order", str(epoch)).permutation(len(pairs))
        for pair in (pairs[i] for i in order):
            rng = seeding.item_rng(seed, f"finetune_tags/{epoch}", pair["id"])
            tags = [str(tag) for tag in rng.permutation(pair["aspect_list"])]
            rows.append(
                {
                    "id": pair["id"],
                    "prompt": chatmodel.messages(prompts, tags),
                    "completion": [{"role": "assistant", "content": pair["caption"]}],
                    "chat_template_kwargs": {"date_string": chatmodel.TEMPLATE_DATE},
                }
            )
    return Dataset.from_list(rows)


def _proven_difference(base: Base, adapter: Path, prompts: dict, spec: Finetune) -> float:
    model, tokenizer = chatmodel.load(base, adapter)
    difference = logit_difference(model, tokenizer, prompts)
    if not difference >= spec.min_logit_difference:
        raise InputError(
            f"captioner.finetune: the trained adapter changes the logits by at most "
            f"{difference:.2e}, below min_logit_difference {spec.min_logit_difference}: it is as "
            "good as untrained. Raise learning_rate or epochs."
        )
    print(f"the adapter, read back, changes the logits by up to {difference:.3f}")
    return difference


@torch.inference_mode()
def logit_difference(model: PeftModel, tokenizer, prompts: dict[str, str]) -> float:
    """Return max |logits with - without the adapter| over the tokens of fixed prompts."""
    largest = 0.0
    for tags in PROBES:
        inputs = chatmodel.encode(tokenizer, [chatmodel.messages(prompts, tags)]).to(model.device)
        with_adapter = model(**inputs).logits.float()
        with model.disable_adapter():
            without = model(**inputs).logits.float()
        largest = max(largest, float((with_adapter - without).abs().max()))
    return largest


def _recipe(base: Base, spec: Finetune, seed: int) -> dict:
    packages = results.versions("torch", "transformers", "trl", "peft", "bitsandbytes")
    return {**asdict(base), **asdict(spec), "seed": seed, "versions": packages}
