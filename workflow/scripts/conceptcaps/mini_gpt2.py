"""The miniature GPT-2 that MAUVE reads: next-token training on the grammar's captions."""

import time
from pathlib import Path

import torch
from transformers import GPT2Config, GPT2LMHeadModel, PreTrainedTokenizerFast

from conceptcaps import mini_tokenizer, mini_training, seeding

END = "<|endoftext|>"
MAX_TOKENS = 192
IGNORED = -100  # label without loss


def train(*, spec: dict, seed: int, output: str | Path) -> None:
    """Train a small GPT-2 on captions of both styles.

    Args:
        spec: steps, batch_size, learning_rate (config: mini.gpt2).
        seed: global seed.
        output: model directory to write.
    """
    started = time.monotonic()
    seeding.seed_everything(seed)
    tokenizer = build_tokenizer(seed=seed)
    model = GPT2LMHeadModel(build_config(tokenizer))
    losses = mini_training.fit(
        model,
        lambda step: _batch(tokenizer, step=step, size=spec["batch_size"], seed=seed),
        steps=spec["steps"],
        learning_rate=spec["learning_rate"],
        what="mini.gpt2",
    )
    unseen = _batch(tokenizer, step="held-out", size=mini_training.HELDOUT, seed=seed)
    mini_training.save(
        model,
        tokenizer,
        output,
        name="gpt2",
        summary="A GPT-2 that reads captions for MAUVE",
        spec=spec,
        losses=losses,
        started=started,
        seed=seed,
        quality={"heldout_loss": mini_training.heldout_loss(model, unseen)},
    )


def build_tokenizer(*, seed: int) -> PreTrainedTokenizerFast:
    """Learn a tokenizer from 2,000 captions; like GPT-2's own it adds nothing to a text."""
    tokenizer = mini_tokenizer.train_tokenizer(
        mini_training.captions(2000, seed=seed, stage="mini_text"),
        vocab_size=1000,
        special={"unk_token": END},
    )
    tokenizer.add_special_tokens({"bos_token": END, "eos_token": END, "pad_token": END})
    tokenizer.model_max_length = MAX_TOKENS
    return tokenizer


def build_config(tokenizer: PreTrainedTokenizerFast) -> GPT2Config:
    """Return the architecture for a tokenizer."""
    return GPT2Config(
        vocab_size=len(tokenizer),
        n_positions=MAX_TOKENS,
        n_embd=128,
        n_layer=2,
        n_head=4,
        resid_pdrop=0.0,
        embd_pdrop=0.0,
        attn_pdrop=0.0,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
    )


def _batch(tokenizer, *, step: int | str, size: int, seed: int) -> dict[str, torch.Tensor]:
    """Return ids, mask and labels [B, T]; every caption ends with the end-of-text token."""
    texts = mini_training.captions(size, seed=seed, stage=f"mini_gpt2/{step}")
    batch = tokenizer([text + END for text in texts], padding=True, return_tensors="pt")
    mask = batch["attention_mask"]
    labels = batch["input_ids"].masked_fill(mask == 0, IGNORED)
    return {"input_ids": batch["input_ids"], "attention_mask": mask, "labels": labels}
