"""Text metrics of captions against human captions, arm by arm, and what tells the arms apart."""

from dataclasses import asdict, dataclass
from itertools import combinations
from pathlib import Path

import numpy as np

from conceptcaps import baselines, io, results, seeding, textmodels, wordmetrics
from conceptcaps.errors import InputError, nearest
from conceptcaps.mentions import Mentions
from conceptcaps.results import MetricResult
from conceptcaps.taxonomy import load_aliases, load_taxonomy, vocabulary

GROUPS = {  # names that stand for several metrics
    "bleu": ("bleu1", "bleu2", "bleu3", "bleu4"),
    "rouge": ("rougeL",),
    "bertscore": ("bertscore_precision", "bertscore_recall", "bertscore_f1"),
    "mauve": ("mauve",),
    "meteor": ("meteor",),
    "tags": ("tag_recall", "all_tags", "tag_precision", "tag_recall_substring"),
    "diversity": ("distinct1", "distinct2", "self_bleu"),
    "length": ("words",),
    "novelty": ("novel_captions", "novel_vocabulary"),
}
METRICS = tuple(name for names in GROUPS.values() for name in names)
OF_ONE_TEXT = ("tags", "diversity", "length", "novelty")  # groups that look at no reference
DIRECTIONS = {"words": "none", "self_bleu": "lower"}  # all others: higher is better
BERTSCORE = {"bertscore_precision": 0, "bertscore_recall": 1, "bertscore_f1": 2}


@dataclass(frozen=True)
class Spec:
    """How texts are compared (config: scores.text)."""

    bootstraps: int  # resamples for the 95 % intervals
    bertscore: dict  # model, revision, layer (hidden layer whose vectors are compared)
    mauve: dict  # model, revision, max_tokens, buckets (None: a tenth of the texts), seeds (runs)


def score(
    *,
    pairs: str | Path,
    captions: dict[str, str | Path],
    taxonomy: str | Path,
    spec: Spec,
    seed: int,
    output: str | Path,
) -> None:
    """Score every arm's captions of held-out tags against the human captions of the same pairs.

    Floors and ceilings stand beside the arms: "shuffled" (the human captions, each at another
    pair), "tag_concat" and "template" (the tags, by rule) and "human" (metrics without a
    reference). METEOR is among the metrics where WordNet is installed.

    Args:
        pairs: table `schemas.PAIRS`; novelty is against the captions of its split "train".
        captions: arm -> table `schemas.CAPTIONS` whose ids are ids of pairs.
        taxonomy: the taxonomy file: the tags that a text can name, and their aliases.
        spec: how texts are compared.
        seed: global seed.
        output: JSON file to write: {"arms": {arm: [metric, ...]}, "comparisons": [...]}, see
            `compare`.

    Raises:
        InputError: an arm's ids are not those of the other arms, or not in `pairs`.
    """
    texts = {arm: _captions_by_id(path) for arm, path in captions.items()}
    ids = list(next(iter(texts.values())))
    rows = io.read_rows(pairs, ["id", "caption", "aspect_list", "split"])
    human = {row["id"]: row for row in rows}
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
    for arm, rule in baselines.RULES.items():
        compared[arm] = [rule(given) for given in tags]
    compared["human"] = references
    known = dict(
        references=references,
        tags=tags,
        mentions=Mentions(vocabulary(load_taxonomy(taxonomy)), load_aliases(taxonomy)),
        training=[row["caption"] for row in rows if row["split"] == "train"],
        models=textmodels.Models(bertscore=spec.bertscore, mauve=spec.mauve),
        n_boot=spec.bootstraps,
        seed=seed,
    )
    groups = [name for name in GROUPS if name != "meteor" or wordmetrics.has_wordnet()]
    measured = {}
    for arm, predictions in compared.items():
        print(f"scoring {arm}: {len(predictions)} texts", flush=True)
        wanted = _expand(OF_ONE_TEXT if arm == "human" else groups)
        measured[arm] = _measure(predictions=predictions, metrics=wanted, **known)
    io.write_json(
        output,
        {
            "arms": {arm: [asdict(m) for m, _ in found] for arm, found in measured.items()},
            "comparisons": compare({arm: measured[arm] for arm in texts}),
        },
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
    metrics: tuple[str, ...] | list[str],
    tags: list[list[str]] | None = None,
    mentions: Mentions | None = None,
    training: list[str] | None = None,
    models: textmodels.Models | None = None,
    n_boot: int = 1000,
    seed: int = 0,
) -> list[MetricResult]:
    """Measure predictions against one reference each; texts may be empty.

    Args:
        predictions: texts to judge, [N].
        references: one human text for each, [N].
        metrics: names from `METRICS`, or groups of them from `GROUPS`: "bleu" is bleu1 to bleu4.
        tags: the tags that each text was asked to name, [N]; for the group "tags".
        mentions: finds tags in texts; without it, the tags in `tags` are the vocabulary.
        training: texts that a model has learned from; for the group "novelty".
        models: the models that BERTScore and MAUVE read texts with; config.yaml's when not given.
        n_boot: resamples for the 95 % intervals.
        seed: seed of the bootstraps and of MAUVE's k-means.

    Returns:
        One result for each metric, groups spread out, in the order asked for. BLEU is in [0, 100],
        everything else but the number of words in [0, 1].

    Raises:
        InputError: there are no texts, their numbers differ, a metric is unknown, or what it needs
            is not given.
    """
    measured = _measure(
        predictions=list(predictions),
        references=list(references),
        metrics=_expand(metrics),
        tags=tags,
        mentions=mentions,
        training=training,
        models=models,
        n_boot=n_boot,
        seed=seed,
    )
    return [result for result, _ in measured]


def _expand(metrics) -> list[str]:
    spread = [name for entry in metrics for name in GROUPS.get(entry, (entry,))]
    for name in spread:
        if name not in METRICS:
            raise InputError(
                f"text metrics: '{name}' is not in {', '.join(METRICS)}, nor a group of them "
                f"({', '.join(GROUPS)}).{nearest(name, [*METRICS, *GROUPS])}"
            )
    return list(dict.fromkeys(spread))


def _measure(
    *, predictions, references, metrics, tags, mentions, training, models, n_boot, seed
) -> list[tuple[MetricResult, np.ndarray | None]]:
    """Return (result, resampled values [n_boot]) of each metric; None where none can be drawn."""
    n = len(predictions)
    if not n or n != len(references) or (tags is not None and n != len(tags)):
        raise InputError(
            f"text metrics: {n} predictions, {len(references)} references"
            + (f" and {len(tags)} tag lists" if tags is not None else "")
            + "; these must be equal and not 0."
        )
    for group, given, name in (("tags", tags, "tags"), ("novelty", training, "training")):
        if given is None and set(metrics) & set(GROUPS[group]):
            raise InputError(f"text metrics: the group '{group}' needs the argument '{name}'.")
    if tags is not None and mentions is None:
        mentions = Mentions(sorted({tag for given in tags for tag in given}))
    models = models or textmodels.Models.of_config()
    weights = results.bootstrap_weights(n, n_boot=n_boot, seed=seed)
    kept = {}  # what several metrics share
    found = []
    for name in metrics:
        recipe = wordmetrics.word_recipe(name)
        if name.startswith("bleu"):
            order = int(name[4:])
            counts = wordmetrics.bleu_counts(predictions, references, order=order)
            value = wordmetrics.bleu_of(counts.sum(0), order=order)
            drawn = np.array([wordmetrics.bleu_of(row, order=order) for row in (weights @ counts)])
        elif name == "mauve":
            value, drawn, recipe = textmodels.mauve(
                predictions, references, models=models, seed=seed, weights=weights
            )
        elif name.startswith("distinct"):
            value, drawn = wordmetrics.distinct(predictions, order=int(name[-1])), None
        elif name == "self_bleu":
            value, drawn = wordmetrics.self_bleu(predictions), None
        elif name.startswith("novel"):
            value, drawn = wordmetrics.novelty(predictions, training)[name], None
        else:
            if name in BERTSCORE:
                if "bertscore" not in kept:
                    kept["bertscore"] = textmodels.bertscore(predictions, references, models=models)
                values, recipe = kept["bertscore"][0][:, BERTSCORE[name]], kept["bertscore"][1]
                recipe = _rescaled(recipe, values.mean(), BERTSCORE[name])
                parts = values, np.ones(n)
            elif name in GROUPS["tags"]:
                if "tags" not in kept:
                    kept["tags"] = wordmetrics.tag_counts(predictions, tags, mentions)
                parts = _tag_parts(name, kept["tags"], predictions, tags)
            else:
                parts = _per_text(name, predictions, references), np.ones(n)
            value = _ratio(*(part.sum() for part in parts))
            drawn = _ratio(*(weights @ part for part in parts))
            if name == "words":
                recipe = {**recipe, "sd": float(parts[0].std())}
        low, high = (None, None) if drawn is None else _interval(drawn)
        if drawn is not None:
            recipe = {**recipe, "bootstraps": n_boot}
        direction = DIRECTIONS.get(name, "higher")
        recipe = {**recipe, "seed": seed}
        found.append((MetricResult(name, float(value), low, high, n, direction, recipe), drawn))
    return found


def _per_text(name: str, predictions, references) -> np.ndarray:
    if name == "rougeL":
        return wordmetrics.rouge_l(predictions, references)
    if name == "meteor":
        return wordmetrics.meteor(predictions, references)
    return np.array([len(text.split()) for text in predictions], dtype=float)


def _tag_parts(name: str, counts: dict, predictions, tags) -> tuple[np.ndarray, np.ndarray]:
    """Return numerators and denominators [N] of a share; texts without tags weigh nothing."""
    asked = (counts["given"] > 0).astype(float)
    if name == "tag_precision":  # of all assertions: a text that asserts nothing weighs nothing
        return counts["wanted"], counts["asserted"]
    if name == "tag_recall":
        return counts["named"] / np.maximum(counts["given"], 1), asked
    if name == "all_tags":
        return asked * (counts["named"] == counts["given"]), asked
    return np.nan_to_num(wordmetrics.substring_recall(predictions, tags)), asked


def _ratio(above, below):
    return above / np.maximum(below, 1e-12)  # nothing of nothing is 0


def _interval(drawn: np.ndarray) -> tuple[float | None, float | None]:
    if not len(drawn):
        return None, None
    low, high = np.quantile(drawn, [0.025, 0.975])
    return float(low), float(high)


def _rescaled(recipe: dict, value: float, column: int) -> dict:
    if "baseline" not in recipe:
        return recipe
    floor = recipe["baseline"][column]
    return {**recipe, "baseline": floor, "rescaled": float((value - floor) / (1 - floor))}


def compare(measured: dict[str, list[tuple[MetricResult, np.ndarray | None]]]) -> list[dict]:
    """Tell arms apart, metric by metric, by a paired bootstrap over the same texts.

    Returns:
        {metric, arm, against, difference, ci_low, ci_high, verdict} of every pair of arms: the
        interval is of the difference, from the same resamples for both arms; the verdict is
        "higher" or "lower", or "not separable" when the arms' own intervals overlap.

    **Source:** Koehn 2004 (paired bootstrap resampling).
    """
    rows = []
    for arm, against in combinations(measured, 2):
        theirs = {result.name: (result, drawn) for result, drawn in measured[against]}
        for result, drawn in measured[arm]:
            other, of_other = theirs[result.name]
            if drawn is None:
                continue
            low, high = _interval(drawn - of_other)
            apart = result.ci_low > other.ci_high or result.ci_high < other.ci_low
            side = "higher" if result.value > other.value else "lower"
            rows.append(
                {
                    "metric": result.name,
                    "arm": arm,
                    "against": against,
                    "difference": result.value - other.value,
                    "ci_low": low,
                    "ci_high": high,
                    "verdict": side if apart else "not separable",
                }
            )
    return rows
