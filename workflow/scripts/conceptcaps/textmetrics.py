"""Text metrics of captions against human captions: BLEU, ROUGE-L, BERTScore, MAUVE, tag recall."""

from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
from rouge_score.rouge_scorer import RougeScorer
from sacrebleu.metrics import BLEU

from conceptcaps import io, results, seeding, textmodels
from conceptcaps.errors import InputError
from conceptcaps.results import MetricResult

METRICS = (
    "bleu1",
    "bleu2",
    "bleu3",
    "bleu4",
    "rougeL",
    "bertscore_f1",
    "mauve",
    "tag_recall",
    "words",
)
OF_ONE_TEXT = ("tag_recall", "words")  # metrics that look at no reference


@dataclass(frozen=True)
class Spec:
    """How texts are compared (config: scores.text)."""

    bootstraps: int  # resamples for the 95 % intervals
    bertscore: dict  # model, revision, layer (hidden layer whose vectors are compared)
    mauve: dict  # model, revision, max_tokens, buckets (None: a tenth of the texts), seeds (runs)


def score(
    *, pairs: str | Path, captions: dict[str, str | Path], spec: Spec, seed: int, output: str | Path
) -> None:
    """Score every arm's captions of held-out tags against the human captions of the same pairs.

    Floors and ceilings stand beside the arms: "shuffled" (the human captions, each at another
    pair), "pasted_tags" (the tags, comma-separated) and "human" (metrics without a reference).

    Args:
        pairs: table `schemas.PAIRS`.
        captions: arm -> table `schemas.CAPTIONS` whose ids are ids of pairs.
        spec: how texts are compared.
        seed: global seed.
        output: JSON file to write: {"arms": {arm: [metric, ...]}}.

    Raises:
        InputError: an arm's ids are not those of the other arms, or not in `pairs`.
    """
    texts = {arm: _captions_by_id(path) for arm, path in captions.items()}
    ids = list(next(iter(texts.values())))
    human = {row["id"]: row for row in io.read_rows(pairs, ["id", "caption", "aspect_list"])}
    for arm, of_arm in texts.items():
        wrong = (set(ids) ^ set(of_arm)) | (set(of_arm) - set(human))
        if wrong:
            raise InputError(
                f"{captions[arm]}: id {min(wrong)} is not in every arm and in {pairs}. Delete the "
                "held-out captions and make them again."
            )
    references = [human[i]["caption"] for i in ids]
    tags = [human[i]["aspect_list"] for i in ids]
    compared = {arm: [of_arm[i] for i in ids] for arm, of_arm in texts.items()}
    compared["shuffled"] = _deranged(references, seed)
    compared["pasted_tags"] = [", ".join(given) for given in tags]
    compared["human"] = references
    models = textmodels.Models(bertscore=spec.bertscore, mauve=spec.mauve)
    scores = {}
    for arm, predictions in compared.items():
        print(f"scoring {arm}: {len(predictions)} texts", flush=True)
        scores[arm] = score_texts(
            predictions=predictions,
            references=references,
            tags=tags,
            metrics=OF_ONE_TEXT if arm == "human" else METRICS,
            models=models,
            n_boot=spec.bootstraps,
            seed=seed,
        )
    io.write_json(
        output, {"arms": {arm: [asdict(m) for m in rows] for arm, rows in scores.items()}}
    )


def _captions_by_id(path: str | Path) -> dict[str, str]:
    return {row["id"]: row["caption"] for row in io.read_rows(path, ["id", "caption"])}


def _deranged(texts: list[str], seed: int) -> list[str]:
    """Return the texts in random order, none in its own place."""
    order = seeding.item_rng(seed, "text_shuffle", "").permutation(len(texts))
    moved = [""] * len(texts)
    for here, there in zip(order, np.roll(order, 1), strict=True):
        moved[here] = texts[there]
    return moved


def score_texts(
    *,
    predictions: list[str],
    references: list[str],
    tags: list[list[str]],
    metrics: tuple[str, ...] | list[str],
    models: textmodels.Models,
    n_boot: int,
    seed: int,
) -> list[MetricResult]:
    """Measure predictions, one reference and one tag list each; texts may be empty.

    Args:
        predictions: texts to judge, [N].
        references: one human text for each, [N].
        tags: the tags that each text was asked to name, [N].
        metrics: names from `METRICS`.
        models: the models that BERTScore and MAUVE read texts with.
        n_boot: resamples for the 95 % intervals.
        seed: seed of the bootstraps and of MAUVE's k-means.

    Raises:
        InputError: there are no texts, their numbers differ, or a metric is unknown.
    """
    if not predictions or not len(predictions) == len(references) == len(tags):
        raise InputError(
            f"text metrics: {len(predictions)} predictions, {len(references)} references and "
            f"{len(tags)} tag lists; these must be equal and not 0."
        )
    unknown = set(metrics) - set(METRICS)
    if unknown:
        raise InputError(
            f"text metrics: {', '.join(sorted(unknown))}: not in {', '.join(METRICS)}."
        )
    found = []
    for name in metrics:
        if name.startswith("bleu"):
            found.append(
                bleu(predictions, references, order=int(name[4:]), n_boot=n_boot, seed=seed)
            )
        elif name == "mauve":
            found.append(textmodels.mauve(predictions, references, models=models, seed=seed))
        else:
            values, recipe = _per_text(name, predictions, references, tags, models)
            value, low, high = results.bootstrap_mean(values, n_boot=n_boot, seed=seed)
            direction = "none" if name == "words" else "higher"
            recipe = {**recipe, "bootstraps": n_boot, "seed": seed}
            found.append(MetricResult(name, value, low, high, len(values), direction, recipe))
    return found


def _per_text(name, predictions, references, tags, models) -> tuple[np.ndarray, dict]:
    if name == "rougeL":
        scorer = RougeScorer(["rougeL"], use_stemmer=False)
        paired = zip(references, predictions, strict=True)
        values = [scorer.score(reference, text)["rougeL"].fmeasure for reference, text in paired]
        return np.array(values), {"stemmer": False, "versions": results.versions("rouge-score")}
    if name == "bertscore_f1":
        return textmodels.bertscore_f1(predictions, references, models=models)
    if name == "tag_recall":
        return tag_recall(predictions, tags), {"match": "lower-case substring", "mean": "of texts"}
    return np.array([len(text.split()) for text in predictions]), {}


def bleu(predictions, references, *, order: int, n_boot: int, seed: int) -> MetricResult:
    """Corpus BLEU in [0, 100]: geometric mean of the 1- to `order`-gram precisions times brevity.

    The interval resamples texts and adds up their n-gram counts again.

    **Source:** Papineni et al. 2002; Post 2018 (sacreBLEU, 13a tokeniser, exponential smoothing).
    """
    metric = BLEU(max_ngram_order=order, tokenize="13a")
    counts = np.array(metric._extract_corpus_statistics(predictions, [references]))  # (N, 2 + 2k)
    value = metric._compute_score_from_stats(counts.sum(0).tolist()).score
    rng = np.random.default_rng(seed)
    n = len(predictions)
    weights = rng.multinomial(n, np.full(n, 1 / n), size=n_boot)  # (n_boot, N)
    resampled = [metric._compute_score_from_stats(row).score for row in (weights @ counts).tolist()]
    low, high = np.quantile(resampled, [0.025, 0.975])
    recipe = {
        "signature": str(metric.get_signature()),
        "scale": 100,
        "bootstraps": n_boot,
        "seed": seed,
    }
    return MetricResult(f"bleu{order}", value, float(low), float(high), n, "higher", recipe)


def tag_recall(predictions: list[str], tags: list[list[str]]) -> np.ndarray:
    """Return each text's share of its tags that occur in it, lower-case, as substrings.

    Texts without tags are left out.
    """
    paired = zip(predictions, tags, strict=True)
    return np.array(
        [np.mean([tag.lower() in text.lower() for tag in given]) for text, given in paired if given]
    )
