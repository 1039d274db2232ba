"""Text metrics that count words: BLEU, ROUGE-L, METEOR, tags, diversity, novelty."""

from collections import Counter

import nltk
import numpy as np
from nltk.tokenize import NLTKWordTokenizer
from nltk.translate.meteor_score import single_meteor_score
from rouge_score.rouge_scorer import RougeScorer
from sacrebleu.metrics import BLEU

from conceptcaps import results
from conceptcaps.errors import InputError
from conceptcaps.mentions import Mentions
from conceptcaps.taxonomy import normalise


def bleu_counts(predictions: list[str], references: list[str], *, order: int) -> np.ndarray:
    """Return each text's lengths and n-gram counts, [N, 2 + 2 * order], to be added up.

    **Source:** Papineni et al. 2002; Post 2018 (sacreBLEU, 13a tokeniser).
    """
    metric = _bleu(order)
    return np.array(metric._extract_corpus_statistics(predictions, [references]))


def bleu_of(counts: np.ndarray, *, order: int) -> float:
    """Return corpus BLEU in [0, 100] of added counts [2 + 2 * order].

    Geometric mean of the 1- to `order`-gram precisions times the brevity penalty, exponential
    smoothing where an order has no match.
    """
    return _bleu(order)._compute_score_from_stats([int(count) for count in counts]).score


def bleu_signature(order: int) -> str:
    """Return sacreBLEU's signature of the settings."""
    metric = _bleu(order)
    metric.corpus_score(["a"], [["a"]])  # the signature wants a number of references
    return str(metric.get_signature())


def _bleu(order: int) -> BLEU:
    return BLEU(max_ngram_order=order, tokenize="13a", force=True)  # force: no advice on full stops


def rouge_l(predictions: list[str], references: list[str]) -> np.ndarray:
    """Return each text's ROUGE-L F measure, [N], without stemming.

    **Source:** Lin 2004; Google's rouge-score.
    """
    scorer = RougeScorer(["rougeL"], use_stemmer=False)
    paired = zip(references, predictions, strict=True)
    return np.array([scorer.score(truth, text)["rougeL"].fmeasure for truth, text in paired])


def has_wordnet() -> bool:
    """Tell whether NLTK finds WordNet (NLTK_DATA), which METEOR takes its synonyms from."""
    for name in ("corpora/wordnet", "corpora/wordnet.zip"):
        try:
            nltk.data.find(name)
        except LookupError:
            continue
        return True
    return False


def meteor(predictions: list[str], references: list[str]) -> np.ndarray:
    """Return each text's METEOR 1.0 (alpha 0.9, beta 3, gamma 0.5), [N].

    **Source:** Banerjee and Lavie 2005, in NLTK's implementation, Treebank tokens.

    Raises:
        InputError: WordNet is not installed.
    """
    if not has_wordnet():
        raise InputError(
            "meteor: NLTK finds no WordNet. Unpack its 'wordnet' corpus into a directory "
            "'corpora' and name that directory's parent in NLTK_DATA, or leave meteor out."
        )
    tokenize = NLTKWordTokenizer().tokenize
    paired = zip(references, predictions, strict=True)
    return np.array(
        [single_meteor_score(tokenize(truth), tokenize(text)) for truth, text in paired]
    )


def tag_counts(
    predictions: list[str], tags: list[list[str]], mentions: Mentions
) -> dict[str, np.ndarray]:
    """Return each text's numbers of tags, [N] each.

    "given": tags asked for; "named": those of them that the text names; "asserted": tags of the
    vocabulary that it asserts; "wanted": those of them that were asked for.
    """
    counts = Counter()
    table = {name: [] for name in ("given", "named", "asserted", "wanted")}
    for text, given in zip(predictions, tags, strict=True):
        found = mentions.find(text)
        counts["given"] = len(given)
        counts["named"] = sum(tag in found.named for tag in given)
        counts["asserted"] = len(found.asserted)
        counts["wanted"] = len(found.asserted & set(given))
        for name, values in table.items():
            values.append(counts[name])
    return {name: np.array(values, dtype=float) for name, values in table.items()}


def substring_recall(predictions: list[str], tags: list[list[str]]) -> np.ndarray:
    """Return each text's share of its tags that occur in it, lower-case, as substrings, [N].

    Without tags there is nothing to name: NaN.
    """
    return np.array(
        [
            np.mean([tag.lower() in text.lower() for tag in given]) if given else np.nan
            for text, given in zip(predictions, tags, strict=True)
        ]
    )


def distinct(predictions: list[str], *, order: int) -> float:
    """Return distinct n-grams as a share of all n-grams of all texts; 0 when there are none.

    **Source:** Li et al. 2016 (distinct-n), words by blanks, lower-case.
    """
    grams = Counter(gram for text in predictions for gram in _grams(_tokens(text), order))
    return len(grams) / max(sum(grams.values()), 1)


def self_bleu(predictions: list[str]) -> float:
    """Return corpus BLEU-4 in [0, 100] of every text against all the others; lower is more diverse.

    **Source:** Zhu et al. 2018. **Differs:** counts are added up over texts, 13a tokens; the
    reference length is the closest of the others.
    """
    if len(predictions) < 2:
        return 0.0
    metric = _bleu(4)
    tokens = [metric._preprocess_segment(text).split() for text in predictions]
    counted = [Counter(g for n in (1, 2, 3, 4) for g in _grams(words, n)) for words in tokens]
    best, second = Counter(), Counter()  # greatest count of an n-gram in a text, and the next
    for grams in counted:
        for gram, count in grams.items():
            if count > best[gram]:
                best[gram], second[gram] = count, best[gram]
            elif count > second[gram]:
                second[gram] = count
    lengths = Counter(map(len, tokens))
    total = np.zeros(10)
    for words, grams in zip(tokens, counted, strict=True):
        total[:2] += len(words), _closest(len(words), lengths)
        for gram, count in grams.items():
            elsewhere = second[gram] if count == best[gram] else best[gram]
            total[1 + len(gram)] += min(count, elsewhere)
            total[5 + len(gram)] += count
    return bleu_of(total, order=4)


def _closest(length: int, lengths: Counter) -> int:
    others = [n for n, texts in lengths.items() if n != length or texts > 1]
    return min(others, key=lambda other: (abs(other - length), other))


def _grams(words: list[str], order: int):
    return zip(*(words[k:] for k in range(order)), strict=False)


def _tokens(text: str) -> list[str]:
    return normalise(text).split()


def vocabulary(texts: list[str]) -> set[str]:
    """Return the different words, lower-case and by blanks."""
    return {word for text in texts for word in _tokens(text)}


def novelty(predictions: list[str], training: list[str]) -> dict[str, float]:
    """Return the shares in [0, 1] of texts, and of different words, that training does not have.

    **Source:** Doh et al. 2023 (LP-MusicCaps), who call them novel captions and novel vocabulary.
    """
    known, words, found = (
        set(map(normalise, training)),
        vocabulary(training),
        vocabulary(predictions),
    )
    return {
        "novel_captions": float(np.mean([normalise(text) not in known for text in predictions])),
        "novel_vocabulary": len(found - words) / max(len(found), 1),
    }


def word_recipe(name: str) -> dict:
    """Return how a metric of this module counts, for its recipe."""
    if name.startswith("bleu"):
        return {"signature": bleu_signature(int(name[4:])), "scale": 100}
    return {
        "rougeL": {"stemmer": False, "versions": results.versions("rouge-score")},
        "meteor": {"version": "1.0", "versions": results.versions("nltk")},
        "tag_recall": {"match": "words, aliases, not denied", "mean": "of texts"},
        "tag_precision": {"match": "words, aliases, not denied", "mean": "of assertions"},
        "all_tags": {"match": "words, aliases, not denied"},
        "tag_recall_substring": {"match": "lower-case substring", "mean": "of texts"},
        "self_bleu": {"tokenizer": "13a", "scale": 100, "versions": results.versions("sacrebleu")},
    }.get(name, {"tokens": "by blanks"})
