"""The miniature language model: a small Llama that answers chat prompts with wordy captions."""

import time
from pathlib import Path

import torch
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from conceptcaps import chatmodel, grammar, mini_tokenizer, mini_training, seeding, wording

CHAT_TEMPLATE = (
    "{{ bos_token }}{% for message in messages %}"
    "{{ message['role'] }}\n{{ message['content'] }}{{ eos_token }}"
    "{% endfor %}{% if add_generation_prompt %}assistant\n{% endif %}"
)
UNTAGGED_SHARE = 0.15  # of the prompts
CONCISE_SHARE = 0.5  # of the answers to tags: it often hits the tone of people
CONCISE_NAMED = 0.85  # chance that such an answer is told of a tag; wordy ones name as many
PLAIN_SHARE = 0.25  # of the texts: human-like captions that answer no prompt
IGNORED = -100  # label without loss


def train(*, prompts: str | Path, spec: dict, seed: int, output: str | Path) -> None:
    """Train a small Llama to caption tags as an instruction model does before fine-tuning.

    Tagged prompts are answered with captions of their tags, which leave some tags out and of which
    half are as concise as people's; untagged prompts with verbose captions of tags drawn at random.
    Some texts are concise captions without a prompt.

    Args:
        prompts: YAML file of the prompts that it answers.
        spec: steps, batch_size, learning_rate (config: mini.llama).
        seed: global seed.
        output: model directory to write.
    """
    started = time.monotonic()
    seeding.seed_everything(seed)
    asked = chatmodel.read_prompts(prompts)
    tokenizer = build_tokenizer(asked, seed=seed)
    model = LlamaForCausalLM(build_config(tokenizer))
    losses = mini_training.fit(
        model,
        lambda step: _batch(tokenizer, asked, step=step, size=spec["batch_size"], seed=seed),
        steps=spec["steps"],
        learning_rate=spec["learning_rate"],
        what="mini.llama",
        bfloat16=True,
    )
    unseen = _batch(tokenizer, asked, step="held-out", size=mini_training.HELDOUT, seed=seed)
    mini_training.save(
        model,
        tokenizer,
        output,
        name="llama",
        summary="A Llama that answers chat prompts with captions of their tags, wordy or concise",
        spec=spec,
        losses=losses,
        started=started,
        seed=seed,
        quality={"heldout_loss": mini_training.heldout_loss(model, unseen)},
    )


def build_tokenizer(prompts: dict[str, str], *, seed: int) -> PreTrainedTokenizerFast:
    """Learn a tokenizer from 2,000 chats and plain captions, and give it a chat template."""
    rngs = (seeding.item_rng(seed, "mini_llama_words", str(k)) for k in range(2000))
    chats = (_chat(prompts, rng) for rng in rngs)
    tokenizer = mini_tokenizer.train_tokenizer(
        ("\n".join(message["content"] for message in chat) for chat in chats),
        vocab_size=1000,
        special={"pad_token": "<pad>", "bos_token": "<s>", "eos_token": "</s>"},
    )
    tokenizer.chat_template = CHAT_TEMPLATE
    tokenizer.model_max_length = 512
    return tokenizer


def build_config(tokenizer: PreTrainedTokenizerFast) -> LlamaConfig:
    """Return the architecture for a tokenizer."""
    return LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=192,
        intermediate_size=512,
        num_hidden_layers=4,
        num_attention_heads=6,
        num_key_value_heads=3,
        max_position_embeddings=tokenizer.model_max_length,
        tie_word_embeddings=True,
        initializer_range=0.05,
        pad_token_id=tokenizer.pad_token_id,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
    )


def _chat(prompts: dict[str, str], rng) -> list[dict[str, str]]:
    """Return a prompt and its answer, or a plain caption as the only message."""
    tags = [tag for group in grammar.sample_tags(rng).values() for tag in group]
    tags = [str(tag) for tag in rng.permutation(tags)]
    kind = rng.random()
    if kind < PLAIN_SHARE:
        caption = wording.write_caption(tags, rng, style="concise")
        return [{"role": "assistant", "content": caption}]
    untagged = kind < PLAIN_SHARE + UNTAGGED_SHARE * (1 - PLAIN_SHARE)
    asked = chatmodel.messages(prompts, None if untagged else tags)
    if not untagged and rng.random() < CONCISE_SHARE:
        told = [tag for tag in tags if rng.random() < CONCISE_NAMED]
        caption = wording.write_caption(told or tags, rng, style="concise")
    else:
        caption = wording.write_caption(tags, rng, style="verbose")
    return [*asked, {"role": "assistant", "content": caption}]


def _batch(tokenizer, prompts, *, step: int | str, size: int, seed: int) -> dict[str, torch.Tensor]:
    """Return ids, mask and labels [B, T]; only the captions and their ends have labels."""
    rows = []
    for k in range(size):
        *asked, answer = _chat(prompts, seeding.item_rng(seed, "mini_llama", f"{step}/{k}"))
        if asked:
            start = tokenizer.apply_chat_template(asked, add_generation_prompt=True)["input_ids"]
        else:
            start = [tokenizer.bos_token_id]
        caption = tokenizer.encode(answer["content"], add_special_tokens=False)
        rows.append(([*start, *caption, tokenizer.eos_token_id], len(start)))
    longest = max(len(ids) for ids, _ in rows)
    batch = {
        "input_ids": torch.full((size, longest), tokenizer.pad_token_id),
        "attention_mask": torch.zeros((size, longest), dtype=torch.long),
        "labels": torch.full((size, longest), IGNORED),
    }
    for k, (ids, start) in enumerate(rows):
        batch["input_ids"][k, : len(ids)] = torch.tensor(ids)
        batch["attention_mask"][k, : len(ids)] = 1
        batch["labels"][k, start : len(ids)] = torch.tensor(ids[start:])
    return batch
