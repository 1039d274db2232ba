"""Teach a chat model to write captions from tags: QLoRA (paper section 3.6), and proof of it."""

import gc
import math
import tempfile
from dataclasses import asdict, dataclass
from pathlib import Path

import datasets
import torch
from datasets import Dataset
from peft import LoraConfig, PeftModel
from transformers import PrinterCallback, TrainerCallback
from trl import SFTConfig, SFTTrainer

from conceptcaps import chatmodel, io, results, seeding
from conceptcaps.chatmodel import Base
from conceptcaps.errors import InputError

LINEAR = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]
PROBES = (  # tag sets whose next-token logits show whether an adapter does anything
    ["jazz", "piano", "slow tempo"],
    ["rock", "energetic", "drums", "fast tempo"],
    ["classical", "strings", "calm"],
)


@dataclass(frozen=True)
class Finetune:
    """How the adapter is trained (config: captioner.finetune)."""

    lora_rank: int
    lora_alpha: float  # the adapter's scale is alpha / rank
    lora_dropout: float  # share in [0, 1)
    max_pairs: int | None  # of training and of validation, at most, drawn by seed; None: all
    epochs: int
    batch_size: int  # pairs a device step
    gradient_accumulation: int  # device steps an optimiser step
    learning_rate: float  # peak, AdamW
    weight_decay: float
    warmup_share: float  # of all optimiser steps, in [0, 1]
    max_length_tokens: int  # of prompt and completion together
    min_logit_difference: float  # an adapter that changes the logits by less is refused


def finetune(
    *,
    pairs: str | Path,
    base: Base,
    spec: Finetune,
    seed: int,
    adapter: str | Path,
    metrics: str | Path,
) -> None:
    """Train a LoRA adapter on the quantised model to write the human captions of tag sets (QLoRA).

    Loss: mean negative log-likelihood (nats a token) of the caption and its end of turn; prompt
    tokens carry no loss. Every epoch shows the pairs in another order, and each pair's tags in
    another order, both drawn from `seed`.

    Args:
        pairs: table `schemas.PAIRS`; split "train" is learned, "validation" only measured.
        base: the model.
        spec: the training's numbers.
        seed: global seed.
        adapter: directory to write; it appears only when the adapter has been read back from disk
            and shown to change the model's logits.
        metrics: JSON file to write: losses and the logit difference.

    Raises:
        InputError: a split is empty, the loss is not finite, or the adapter changes the logits by
            less than `spec.min_logit_difference`.

    **Source:** Dettmers et al. 2023 (QLoRA); paper section 3.6.
    **Differs:** the paper's code loses its completion mask in the collator, never passes its
    compute type to the quantiser, and uses an untrained adapter: see the checks here.
    """
    seeding.seed_everything(seed)
    datasets.disable_progress_bars()  # they would fill the log
    prompts = chatmodel.read_prompts(base.prompts)
    train, validation = (
        _drawn(_split(pairs, name), spec.max_pairs, seed) for name in ("train", "validation")
    )
    model, tokenizer = chatmodel.load(base)
    with tempfile.TemporaryDirectory() as scratch:
        trainer = make_trainer(
            model=model,
            tokenizer=tokenizer,
            train=training_rows(train, prompts, epochs=spec.epochs, seed=seed),
            validation=training_rows(validation, prompts, epochs=1, seed=seed),
            base=base,
            spec=spec,
            seed=seed,
            scratch=scratch,
        )
        before = trainer.evaluate()["eval_loss"]
        train_loss = trainer.train().training_loss
        after = trainer.evaluate()["eval_loss"]
    config = trainer.model.active_peft_config
    config.target_modules = sorted(config.target_modules)  # a set, saved in another order each time
    with io.atomic(adapter) as directory:
        # The automatic choice asks the hub whether the vocabulary grew; it cannot have.
        trainer.model.save_pretrained(directory, save_embedding_layers=False)
        (directory / "README.md").unlink(missing_ok=True)  # PEFT's empty model card
        del trainer, model
        gc.collect()
        torch.cuda.empty_cache()
        difference = _proven_difference(base, directory, prompts, spec)
    recipe = _recipe(base, spec, seed)
    n_train, n_validation = len(train), len(validation)
    results.write_metrics(
        metrics,
        [
            _metric("train_loss", train_loss, n_train, "lower", recipe),  # mean over all steps
            _metric("eval_loss_before", before, n_validation, "lower", recipe),
            _metric("eval_loss", after, n_validation, "lower", recipe),
            _metric("adapter_logit_difference", difference, len(PROBES), "none", recipe),
        ],
    )


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
                    "prompt": chatmodel.messages(prompts, tags),
                    "completion": [{"role": "assistant", "content": pair["caption"]}],
                    "chat_template_kwargs": {"date_string": chatmodel.TEMPLATE_DATE},
                }
            )
    return Dataset.from_list(rows)


def make_trainer(
    *,
    model,
    tokenizer,
    train: Dataset,
    validation: Dataset,
    base: Base,
    spec: Finetune,
    seed,
    scratch,
) -> SFTTrainer:
    """Return TRL's trainer over rows that already hold every epoch; `scratch` is a directory."""
    on_gpu = torch.cuda.is_available()
    steps = math.ceil(len(train) / (spec.batch_size * spec.gradient_accumulation))
    arguments = SFTConfig(
        output_dir=str(scratch),
        num_train_epochs=1,
        train_sampling_strategy="sequential",
        per_device_train_batch_size=spec.batch_size,
        per_device_eval_batch_size=spec.batch_size,
        gradient_accumulation_steps=spec.gradient_accumulation,
        learning_rate=spec.learning_rate,
        weight_decay=spec.weight_decay,
        lr_scheduler_type="cosine",
        warmup_steps=round(spec.warmup_share * steps),
        max_length=spec.max_length_tokens,
        completion_only_loss=True,
        bf16=base.dtype == "bfloat16",
        fp16=base.dtype == "float16",
        gradient_checkpointing=on_gpu,  # the same gradients in less memory
        use_cpu=not on_gpu,
        seed=seed,
        logging_steps=1,
        logging_nan_inf_filter=False,
        save_strategy="no",
        report_to="none",
        disable_tqdm=True,
    )
    trainer = SFTTrainer(
        model=model,
        args=arguments,
        train_dataset=train,
        eval_dataset=validation,
        processing_class=tokenizer,
        peft_config=LoraConfig(
            r=spec.lora_rank,
            lora_alpha=spec.lora_alpha,
            lora_dropout=spec.lora_dropout,
            target_modules=LINEAR,
            task_type="CAUSAL_LM",
            base_model_name_or_path=base.model,
            revision=base.revision,
        ),
        callbacks=[_Watch()],
    )
    trainer.remove_callback(PrinterCallback)
    _check_lengths(trainer, len(train), spec)
    for parameter in trainer.model.parameters():
        if parameter.requires_grad:
            # TRL makes the adapter bfloat16, where small AdamW steps are lost to rounding.
            parameter.data = parameter.data.float()
    return trainer


def _check_lengths(trainer: SFTTrainer, n_rows: int, spec: Finetune) -> None:
    """Say how many captions are cut; refuse prompts without room for one, which TRL drops."""
    lost = n_rows - len(trainer.train_dataset)
    if lost:
        raise InputError(
            f"captioner.finetune.max_length_tokens: {spec.max_length_tokens} leaves no room for a "
            f"caption behind {lost} of {n_rows} prompts. Raise it."
        )
    cut = sum(len(ids) >= spec.max_length_tokens for ids in trainer.train_dataset["input_ids"])
    print(f"{cut} of {n_rows} rows reach max_length_tokens and may be cut")


class _Watch(TrainerCallback):
    """Write the loss to the log; stop when it is no longer a number."""

    def on_log(self, args, state, control, logs=None, **kwargs):
        loss = (logs or {}).get("loss", (logs or {}).get("eval_loss"))
        if loss is None:
            return
        if not math.isfinite(loss):
            raise InputError(
                f"captioner.finetune: the loss became {loss} at step {state.global_step}. "
                "Lower learning_rate, or use dtype bfloat16 in place of float16."
            )
        if "eval_loss" in logs or state.global_step % 10 == 0:
            kind = "validation loss" if "eval_loss" in logs else "loss"
            print(f"step {state.global_step} of {state.max_steps}: {kind} {loss:.4f}", flush=True)


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
