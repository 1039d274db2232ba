"""TRL's trainer for a LoRA adapter: its data, its looks at the validation loss, its checkpoints."""

import math
import shutil
from dataclasses import dataclass
from pathlib import Path

import torch
from datasets import Dataset
from peft import LoraConfig
from transformers import PrinterCallback, TrainerCallback
from trl import SFTConfig, SFTTrainer

from conceptcaps import io, schemas
from conceptcaps.chatmodel import Base
from conceptcaps.errors import InputError

LINEAR = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]
WHOLE = "whole"  # file in a checkpoint that was written to its end


@dataclass(frozen=True)
class Finetune:
    """How the adapter is trained (config: captioner.finetune)."""

    lora_rank: int
    lora_alpha: float  # the adapter's scale is alpha / rank
    lora_dropout: float  # share in [0, 1)
    max_pairs: int | None  # training pairs, at most, drawn by seed; None: all
    epochs: int
    batch_size: int  # pairs a device step
    gradient_accumulation: int  # device steps an optimiser step
    learning_rate: float  # peak, AdamW
    weight_decay: float
    warmup_share: float  # of all optimiser steps, in [0, 1]
    max_length_tokens: int  # of prompt and completion together
    max_validation_pairs: int | None  # of the validation pairs, at most, drawn by seed; None: all
    evaluations: int  # looks at the validation loss, each with a checkpoint
    min_yield: float  # share of the rows that fit max_length_tokens, in [0, 1]
    min_logit_difference: float  # an adapter that changes the logits by less is refused


def make_trainer(
    *,
    model,
    tokenizer,
    train: Dataset,
    validation: Dataset,
    base: Base,
    spec: Finetune,
    seed,
    sidecar: io.Sidecar,
) -> SFTTrainer:
    """Return TRL's trainer over rows that already hold every epoch; the sidecar has checkpoints."""
    on_gpu = torch.cuda.is_available()
    arguments = SFTConfig(
        output_dir=str(sidecar.directory),
        num_train_epochs=1,
        train_sampling_strategy="sequential",
        per_device_train_batch_size=spec.batch_size,
        per_device_eval_batch_size=spec.batch_size,
        gradient_accumulation_steps=spec.gradient_accumulation,
        learning_rate=spec.learning_rate,
        weight_decay=spec.weight_decay,
        lr_scheduler_type="cosine",
        max_length=None,  # nothing is cut: see _leave_out_long
        completion_only_loss=True,
        bf16=base.dtype == "bfloat16",
        fp16=base.dtype == "float16",
        gradient_checkpointing=on_gpu,  # the same gradients in less memory
        use_cpu=not on_gpu,
        seed=seed,
        logging_steps=1,
        logging_nan_inf_filter=False,
        eval_strategy="steps",
        save_strategy="steps",
        save_total_limit=2,
        load_best_model_at_end=True,
        metric_for_best_model="eval_loss",
        greater_is_better=False,
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
        callbacks=[_Watch(sidecar)],
    )
    trainer.remove_callback(PrinterCallback)
    _leave_out_long(trainer, train, validation, spec)
    steps = math.ceil(len(trainer.train_dataset) / _rows_a_step(spec))
    trainer.args.warmup_steps = round(spec.warmup_share * steps)
    every = math.ceil(steps / spec.evaluations)
    trainer.args.eval_steps = trainer.args.save_steps = every
    for parameter in trainer.model.parameters():
        if parameter.requires_grad:
            # TRL makes the adapter bfloat16, where small AdamW steps are lost to rounding.
            parameter.data = parameter.data.float()
    return trainer


def _leave_out_long(trainer: SFTTrainer, train, validation, spec: Finetune) -> None:
    """Leave rows out that do not fit; refuse when too many do not."""
    room = getattr(trainer.model.config, "max_position_embeddings", None)
    most = spec.max_length_tokens
    if room is not None and most > room:
        raise InputError(
            f"captioner.finetune.max_length_tokens: {most} is beyond the model's context of {room} "
            "tokens. Lower it."
        )
    for name, given, of_trainer in (
        ("training", train, "train_dataset"),
        ("validation", validation, "eval_dataset"),
    ):
        tokenised = getattr(trainer, of_trainer)
        sizes = [len(ids) for ids in tokenised["input_ids"]]
        long = [k for k, size in enumerate(sizes) if size > most]
        if len(long) > (1 - spec.min_yield) * len(sizes) or len(long) == len(sizes):
            size, pair = sizes[long[0]], given[long[0]]["id"]
            raise InputError(
                f"captioner.finetune.max_length_tokens: {len(long)} of {len(sizes)} {name} rows "
                f"are longer than {most} tokens with their prompt (first: pair {pair}, {size} "
                f"tokens), and min_yield is {spec.min_yield}. Raise "
                f"max_length_tokens (the model's context: {room}), or shorten the captions."
            )
        if long:
            print(f"{len(long)} of {len(sizes)} {name} rows are too long and left out", flush=True)
            kept = sorted(set(range(len(sizes))) - set(long))
            setattr(trainer, of_trainer, tokenised.select(kept))


class _Watch(TrainerCallback):
    """Write the loss to the log; stop when it is no longer a number; finish checkpoints."""

    def __init__(self, sidecar: io.Sidecar):
        self.sidecar = sidecar

    def on_save(self, args, state, control, **kwargs):
        self.sidecar.lock.check()
        with io.atomic(Path(args.output_dir) / f"checkpoint-{state.global_step}" / WHOLE) as path:
            path.touch()

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


def _rows_a_step(spec: Finetune) -> int:
    return spec.batch_size * spec.gradient_accumulation


def loss_curve(log_history: list[dict], *, before: float, spec: Finetune, pairs: int) -> list[dict]:
    """Return rows of `schemas.FINETUNING` from the trainer's log, step 0 being the untrained model.

    Args:
        log_history: what the trainer logged, also before it was killed.
        before: validation loss without an adapter (nats a token).
        spec: the training's numbers.
        pairs: rows of an epoch.
    """
    rows = {0: dict.fromkeys(schemas.FINETUNING.names) | {"validation_loss": before}}
    for entry in log_history:
        row = rows.setdefault(entry["step"], dict.fromkeys(schemas.FINETUNING.names))
        for name, key in (
            ("loss", "loss"),
            ("validation_loss", "eval_loss"),
            ("learning_rate", "learning_rate"),
            ("gradient_norm", "grad_norm"),
        ):
            if key in entry:
                row[name] = float(entry[key])
    return [
        row | {"step": step, "epoch": step * _rows_a_step(spec) / pairs}
        for step, row in sorted(rows.items())
    ]


def last_checkpoint(directory: Path) -> str | None:
    """Return the latest checkpoint that was written to its end; half-written ones are removed."""
    whole = []
    for checkpoint in directory.glob("checkpoint-*"):
        if (checkpoint / WHOLE).is_file():
            whole.append(checkpoint)
        else:
            shutil.rmtree(checkpoint)
    latest = max(whole, key=lambda path: int(path.name.split("-")[1]), default=None)
    if latest is not None:
        print(f"going on from {latest}", flush=True)
    return latest and str(latest)
