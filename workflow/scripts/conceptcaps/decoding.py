"""Answers of the chat model to prompts: transformers' decoding, batch by batch."""

from dataclasses import dataclass
from pathlib import Path

import torch
from transformers import GenerationConfig, LogitsProcessorList

from conceptcaps import chatmodel
from conceptcaps.chatmodel import Base
from conceptcaps.errors import InputError
from conceptcaps.sampling import ExactSampler, ItemSampler


@dataclass(frozen=True)
class Spec:
    """How captions are drawn (config: captioner.generate)."""

    engine: str  # "transformers" or "vllm"
    batch_size: int  # prompts decoded together
    max_new_tokens: int
    temperature: float  # 0 is greedy
    top_p: float  # nucleus probability, in (0, 1]
    min_yield: float  # share of items, in [0, 1]


@dataclass(frozen=True)
class Answer:
    """What the model said."""

    text: str
    n_tokens: int  # without the end
    finished: bool  # the model ended itself, not the length limit


class Transformers:
    """Draw answers with `generate`; in float32 an answer depends on neither batch nor padding."""

    def __init__(self, base: Base, adapter: str | None, spec: Spec):
        """Load the model, with an adapter where one is given.

        Raises:
            InputError: see `chatmodel.load`.
        """
        self.spec, self.base = spec, base
        self.model, self.tokenizer = chatmodel.load(base, adapter)

    def answer(self, chats: list[list[dict]], seeds: list[int]) -> list[Answer]:
        """Return an answer to each chat, drawn from the item's own random stream.

        Args:
            chats: messages of each prompt.
            seeds: item seed of each.

        Raises:
            InputError: the context has no room for an answer, or memory runs out.
        """
        inputs = chatmodel.encode(self.tokenizer, chats).to(self.model.device)
        length = inputs["input_ids"].shape[1]
        room = getattr(self.model.config, "max_position_embeddings", None)
        check_room(self.base, self.spec, length, room)
        stops = self.model.generation_config.eos_token_id
        padding = (length - inputs["attention_mask"].sum(1)).tolist()

        def alone(row: int, tokens: torch.Tensor):
            """Return the next logits of an item by itself, without padding and cache."""
            if any(token in stops for token in tokens[length:].tolist()):
                return None
            return self.model(tokens[None, padding[row] :], use_cache=False).logits[0, -1]

        drawn = {"temperature": self.spec.temperature, "top_p": self.spec.top_p}
        if self.base.dtype == "float32":
            sampler = ExactSampler(seeds, alone=alone, **drawn)
        else:  # half precision moves logits by more than any useful tolerance
            sampler = ItemSampler(seeds, **drawn)
        with chatmodel.memory("captioner.generate.batch_size"), torch.inference_mode():
            tokens = self.model.generate(
                **inputs,
                generation_config=GenerationConfig(
                    do_sample=False,  # the sampler's noise makes the argmax a draw
                    max_new_tokens=self.spec.max_new_tokens,
                ),
                logits_processor=LogitsProcessorList([sampler]),
            )
        return [read(self.tokenizer, answer, stops) for answer in tokens[:, length:].tolist()]


def check_room(base: Base, spec: Spec, length: int, room: int | None) -> None:
    """Refuse prompts of `length` tokens that leave no room for an answer in the context."""
    if room is not None and length + spec.max_new_tokens > room:
        raise InputError(
            f"captioner.generate.max_new_tokens: {length} tokens of prompt and "
            f"{spec.max_new_tokens} of caption exceed the context of {base.model}, {room} tokens. "
            "Lower it, or name fewer tags."
        )


def read(tokenizer, answer: list[int], stops: list[int]) -> Answer:
    """Return the text of answer tokens up to the first stop token."""
    end = next((i for i, token in enumerate(answer) if token in stops), None)
    text = tokenizer.decode(
        answer[:end], skip_special_tokens=True, clean_up_tokenization_spaces=False
    )
    return Answer(text, len(answer[:end]), end is not None)


def engine(base: Base, adapter: str | Path | None, spec: Spec):
    """Return the engine that `spec.engine` names: an object with `answer(chats, seeds)`."""
    if spec.engine == "vllm":
        from conceptcaps.vllm_engine import Vllm  # its library is optional

        return Vllm(base, adapter, spec)
    return Transformers(base, adapter, spec)
