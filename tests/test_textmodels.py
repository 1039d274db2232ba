"""The models that read texts: how they are loaded."""

from bert_score.utils import sent_encode

from conceptcaps import textmodels

MODELS = "resources/mini/models"


def test_bertscore_reads_the_first_word_as_the_others_and_mauve_does_not():
    """As bert-score does with roberta: published scores and baselines are of such tokens."""
    models = textmodels.Models(
        bertscore={"model": f"{MODELS}/roberta", "revision": None, "layer": 1},
        mauve={"model": f"{MODELS}/gpt2", "revision": None},
    )
    tokenizer = models.bertscore[1]
    tokens = tokenizer.convert_ids_to_tokens(sent_encode(tokenizer, "piano and piano"))
    assert tokens == ["<s>", "\u0120piano", "\u0120and", "\u0120piano", "</s>"]
    assert models.mauve[1].tokenize("piano and")[0] != "\u0120piano"
