"""What the training of the miniature text models shares: the loop and the folder it leaves."""

import math
import time
from collections.abc import Callable
from pathlib import Path

import torch

from conceptcaps import grammar, io, runlog, seeding
from conceptcaps.errors import InputError


def fit(
    model: torch.nn.Module,
    batch_of: Callable[[int], dict[str, torch.Tensor]],
    *,
    steps: int,
    learning_rate: float,
    what: str,
) -> list[float]:
    """Train with AdamW: 5 % of the steps of warm-up, then a cosine to zero; gradients clipped at 1.

    Args:
        model: called with the tensors of a batch; its output has a `loss`.
        batch_of: step -> batch.
        steps: optimiser steps.
        learning_rate: at the peak.
        what: name of the config section, for messages.

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
    losses = []
    model.train()
    for step in runlog.progress(range(steps), what=what):
        loss = model(**batch_of(step)).loss
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
        texts.append(grammar.write_caption(grammar.sample_tags(rng), rng, style=style))
    return texts


def save(model, tokenizer, output: str | Path, *, losses: list[float], started: float, seed: int):
    """Write model, tokenizer and training.json (`started` by time.monotonic()) to a directory."""
    with io.atomic(output) as directory:
        model.eval().save_pretrained(directory)
        tokenizer.save_pretrained(directory)
        io.write_json(
            directory / "training.json",
            {
                "seed": seed,
                "steps": len(losses),
                "loss_first": losses[0],
                "loss_last": losses[-1],
                "minutes": round((time.monotonic() - started) / 60, 2),
                "parameters": model.num_parameters(),
            },
        )
