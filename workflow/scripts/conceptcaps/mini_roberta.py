"""The miniature RoBERTa that BERTScore reads: masked-word training on the grammar's captions."""

import time
from pathlib import Path

import torch
from transformers import PreTrainedTokenizerFast, RobertaConfig, RobertaForMaskedLM

from conceptcaps import mini_tokenizer, mini_training, seeding

SPECIAL = {  # RoBERTa's own order of ids: its positions start behind the id of the padding
    "bos_token": "<s>",
    "pad_token": "<pad>",
    "eos_token": "</s>",
    "unk_token": "<unk>",
    "mask_token": "<mask>",
    "cls_token": "<s>",
    "sep_token": "</s>",
}
MAX_TOKENS = 192
MASKED_SHARE = 0.15
IGNORED = -100  # label without loss


def train(*, spec: dict, seed: int, output: str | Path) -> None:
    """Train a small RoBERTa to guess masked tokens of captions of both styles.

    Args:
        spec: steps, batch_size, learning_rate (config: mini.roberta).
        seed: global seed.
        output: model directory to write.
    """
    started = time.monotonic()
    seeding.seed_everything(seed)
    tokenizer = build_tokenizer(seed=seed)
    model = RobertaForMaskedLM(build_config(tokenizer))
    losses = mini_training.fit(
        model,
        lambda step: _batch(tokenizer, step=step, size=spec["batch_size"], seed=seed),
        steps=spec["steps"],
        learning_rate=spec["learning_rate"],
        what="mini.roberta",
    )
    unseen = _batch(tokenizer, step="held-out", size=mini_training.HELDOUT, seed=seed)
    mini_training.save(
        model,
        tokenizer,
        output,
        name="roberta",
        summary="A RoBERTa that reads captions for BERTScore",
        spec=spec,
        losses=losses,
        started=started,
        seed=seed,
        quality={"heldout_masked_loss": mini_training.heldout_loss(model, unseen)},
    )


def build_tokenizer(*, seed: int) -> PreTrainedTokenizerFast:
    """Learn a tokenizer from 2,000 captions."""
    tokenizer = mini_tokenizer.train_tokenizer(
        mini_training.captions(2000, seed=seed, stage="mini_text"), vocab_size=1000, special=SPECIAL
    )
    tokenizer.model_max_length = MAX_TOKENS
    return tokenizer


def build_config(tokenizer: PreTrainedTokenizerFast) -> RobertaConfig:
    """Return the architecture for a tokenizer."""
    return RobertaConfig(
        vocab_size=len(tokenizer),
        hidden_size=128,
        intermediate_size=256,
        num_hidden_layers=2,
        num_attention_heads=4,
        max_position_embeddings=MAX_TOKENS + tokenizer.pad_token_id + 1,
        type_vocab_size=1,
        hidden_dropout_prob=0.0,
        attention_probs_dropout_prob=0.0,
        pad_token_id=tokenizer.pad_token_id,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
    )


def _batch(tokenizer, *, step: int | str, size: int, seed: int) -> dict[str, torch.Tensor]:
    """Return ids with masks in them, attention mask and labels of the masked tokens, all [B, T]."""
    texts = mini_training.captions(size, seed=seed, stage=f"mini_roberta/{step}")
    batch = tokenizer(
        texts,
        padding=True,
        truncation=True,
        return_tensors="pt",
        return_special_tokens_mask=True,
        return_token_type_ids=False,
    )
    words = batch.pop("special_tokens_mask") == 0
    rng = seeding.item_rng(seed, "mini_roberta_mask", str(step))
    hidden = torch.from_numpy(rng.random(words.shape) < MASKED_SHARE) & words
    labels = batch["input_ids"].masked_fill(~hidden, IGNORED)
    ids = batch["input_ids"].masked_fill(hidden, tokenizer.mask_token_id)
    return {"input_ids": ids, "attention_mask": batch["attention_mask"], "labels": labels}
