"""What the training of the miniature models shares: the loop and the folder it leaves."""

import copy
import math
import time
from collections.abc import Callable
from pathlib import Path

import torch

from conceptcaps import grammar, io, runlog, seeding, wording
from conceptcaps.errors import InputError

HELDOUT = 64  # texts that a text model is measured on after training


def fit(
    model: torch.nn.Module,
    batch_of: Callable[[int], dict[str, torch.Tensor]],
    *,
    steps: int,
    learning_rate: float,
    what: str,
    bfloat16: bool = False,
) -> list[float]:
    """Train with AdamW: 5 % of the steps of warm-up, then a cosine to zero; gradients clipped at 1.

    Args:
        model: called with the tensors of a batch; its output has a `loss`.
        batch_of: step -> batch.
        steps: optimiser steps.
        learning_rate: at the peak.
        what: name of the config section, for messages.
        bfloat16: let matrix products round to bfloat16 where the CPU has AVX-512, twice as fast
            there; others emulate it, ten times slower than float32.

    Returns:
        The loss of every step.

    Raises:
        InputError: the loss is no longer finite.
    """
    optimiser = torch.optim.AdamW(
        model.parameters(), lr=learning_rate, betas=(0.9, 0.95), weight_decay=0.05
    )
    warmup = max(1, steps // 20)
    schedule = torch.optim.lr_scheduler.LambdaLR(
        optimiser,
        lambda step: min(1.0, (step + 1) / warmup) * (1 + math.cos(math.pi * step / steps)) / 2,
    )
    rounds = bfloat16 and torch.backends.cpu.get_cpu_capability() == "AVX512"
    losses = []
    model.train()
    for step in runlog.progress(range(steps), what=what):
        batch = batch_of(step)
        with torch.autocast("cpu", torch.bfloat16, enabled=rounds):
            loss = model(**batch).loss
        losses.append(loss.item())
        if not math.isfinite(losses[-1]):
            raise InputError(
                f"{what}: the loss became {losses[-1]} at step {step}. Lower learning_rate."
            )
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimiser.step()
        schedule.step()
        optimiser.zero_grad()
        if step % 50 == 0 or step == steps - 1:
            print(f"{what}: step {step}, loss {losses[-1]:.3f}", flush=True)
    return losses


def captions(count: int, *, seed: int, stage: str) -> list[str]:
    """Return captions of random tag sets, concise and verbose in turn, drawn for `stage`."""
    texts = []
    for k in range(count):
        rng = seeding.item_rng(seed, stage, str(k))
        style = ("concise", "verbose")[k % 2]
        texts.append(wording.write_caption(grammar.sample_tags(rng), rng, style=style))
    return texts


@torch.inference_mode()
def heldout_loss(model: torch.nn.Module, batch: dict[str, torch.Tensor]) -> float:
    """Return the loss of a model on a batch that it was not trained on, nats a token."""
    return model.eval()(**batch).loss.item()


def save(
    model,
    processor,
    output: str | Path,
    *,
    name: str,
    summary: str,
    spec: dict,
    losses: list[float],
    started: float,
    seed: int,
    quality: dict[str, float],
) -> None:
    """Write a trained model to a directory, with its record training.json and a model card.

    Args:
        model: has `save_pretrained`; float16 goes into the file, which halves it. Readers ask for
            the type that they compute in.
        processor: tokenizer, feature extractor or processor to save beside it; may be None.
        output: model directory to write.
        name: of the model, that is of its rule `train_mini_<name>`.
        summary: what the model is, a sentence without its full stop.
        spec: config section of the model.
        losses: of every step.
        started: start of the training, by time.monotonic().
        seed: global seed.
        quality: figure -> value, on data that the model was not trained on.
    """
    record = {
        "seed": seed,
        "steps": len(losses),
        "loss_first": losses[0],
        "loss_last": losses[-1],
        "minutes": round((time.monotonic() - started) / 60, 2),
        "parameters": sum(p.numel() for p in model.parameters()),
        "spec": spec,
        "quality": quality,
    }
    with io.atomic(output) as directory:
        copy.deepcopy(model).eval().half().save_pretrained(directory)
        if processor is not None:
            processor.save_pretrained(directory)
        io.write_json(directory / "training.json", record)
        (directory / "README.md").write_text(_card(name, summary, record))
    print(f"mini.{name}: {record}")


def _card(name: str, summary: str, record: dict) -> str:
    """Return the model card: what it is, what it was trained on, how well, how to make it again."""
    rows = "".join(f"| `{figure}` | {value:.4g} |\n" for figure, value in record["quality"].items())
    return f"""---
license: mit
library_name: transformers
---

# {name}, in miniature

{summary}.

It exists to prove the pipeline of the ConceptCaps Workflow, not to make music, and is of no use
elsewhere. It was trained on the project's own synthetic corpus (a grammar of tags and captions, a
synthesiser), without any third-party data.

Seed {record["seed"]}, {record["steps"]} steps, {record["minutes"]:.0f} minutes on one CPU core,
{record["parameters"]:,} parameters, stored as float16.

| figure, on data not trained on | value |
|---|---|
{rows}
To train it again, from the root of the repository:

```bash
snakemake --workflow-profile mini train_mini_{name}
```
"""
