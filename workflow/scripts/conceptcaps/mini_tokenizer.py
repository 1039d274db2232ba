"""The tokenizer of the miniature models: byte-level BPE learned from the grammar's captions."""

from collections.abc import Iterable

from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers
from transformers import PreTrainedTokenizerFast


def train_tokenizer(
    texts: Iterable[str], *, vocab_size: int, special: dict[str, str]
) -> PreTrainedTokenizerFast:
    """Learn a byte-level BPE tokenizer; it encodes any text, without unknown tokens.

    Args:
        texts: what to learn from.
        vocab_size: upper limit of the vocabulary; few distinct words give fewer tokens.
        special: role -> token, as PreTrainedTokenizerFast names them, e.g.
            {"pad_token": "<pad>", "eos_token": "</s>"}. Ids are given in this order from 0. Every
            text gets "bos_token" or "cls_token" in front and "eos_token" or "sep_token" behind, as
            far as they are named.
    """
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size,
        special_tokens=list(dict.fromkeys(special.values())),
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts, trainer)
    first = special.get("cls_token") or special.get("bos_token")
    last = special.get("sep_token") or special.get("eos_token")
    template = " ".join(filter(None, [first, "$A", last]))
    ends = [(token, tokenizer.token_to_id(token)) for token in (first, last) if token]
    if ends:
        tokenizer.post_processor = processors.TemplateProcessing(
            single=template, pair=f"{template} $B:1 {last or ''}".rstrip(), special_tokens=ends
        )
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, **special)
