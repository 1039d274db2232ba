"""What must hold in the miniature world: figures of a run beside their bounds."""

import operator
from itertools import pairwise
from pathlib import Path

from conceptcaps.io import read_json, read_rows, write_json

_HOLDS = {">=": operator.ge, "<=": operator.le, ">": operator.gt}
CLIP_BOUNDS = (  # figure of `miniature.measure_clips`, bound
    ("generated_genre_accuracy", ">=", 0.75),
    ("generated_instrument_auc", ">=", 0.90),
    ("generated_fast_slow_auc", ">=", 0.92),
    ("generated_tempo_accuracy", ">=", 0.70),
    ("codec_tempo_accuracy", ">=", 0.95),
    ("codec_genre_accuracy", ">=", 0.90),
    ("played_clap_auc", ">=", 0.98),
    ("generated_clap_auc", ">=", 0.90),
)
TAG_BOUNDS = (  # figure of `miniature.measure_tags`, bound
    ("tags_marginal_mae", "<=", 0.01),
    ("tags_cooccurrence_cosine", ">=", 0.97),
    ("tags_exclusive_pairs", "<=", 0),
)
CAPTION_BOUNDS = (  # figure of `caption_figures`, bound
    ("caption_recall_before_gate", ">=", 0.85),
    ("caption_recall", ">=", 0.95),
    ("captions_naming_all_tags", ">=", 0.80),
    ("caption_yield", ">=", 0.80),
)
NOISE_MARGIN = 0.05  # by which noise's AUC may differ from 0.5
FAD_ORDER = ("played", "codec", "generated", "noise")  # each farther from the reference
ARM_ORDER = ("conceptcaps", "base", "zero_shot")  # each better than the next
ARM_METRICS = ("tag_recall", "bleu4", "bertscore_f1", "mauve")
GENRE_ACCURACY = 0.80
PLANTED = (  # genre, concepts of which one at least must speak for it
    ("metal", ("distorted electric guitar",)),
    ("classical", ("strings", "piano")),
)
SHUFFLED_SHARE = 0.1  # of the shuffled control's cells that may come out significant


def check(
    *,
    clips: str | Path,
    tags: str | Path,
    drafts: list[str | Path],
    text: str | Path,
    genrecnn: str | Path,
    tcav: str | Path,
    output: str | Path,
) -> None:
    """Write all checks of a run as a list of {name, value, bound, holds}.

    Args:
        clips: metrics of `miniature.measure_clips`.
        tags: metrics of `miniature.measure_tags`.
        drafts: tables `schemas.DRAFTS` of the dataset's own arm.
        text: text scores of the arms. Of two arms, the value is the gap between their intervals.
        genrecnn: metrics of the genre classifier.
        tcav: rows of `schemas.TCAV`.
        output: JSON file to write.
    """
    heard, sampled = _by_name(read_json(clips)["metrics"]), _by_name(read_json(tags)["metrics"])
    checks = [_check(name, heard[name]["value"], *bound) for name, *bound in CLIP_BOUNDS]
    off = abs(heard["noise_clap_auc"]["value"] - 0.5)
    checks.append(_check("noise_clap_auc_off_half", off, "<=", NOISE_MARGIN))
    for a, b in pairwise(FAD_ORDER):
        lowest = heard[f"fad_step_{a}_{b}"]["ci_low"]
        checks.append(_check(f"fad_{b}_beyond_{a}", lowest, ">", 0))
    checks += [_check(name, sampled[name]["value"], *bound) for name, *bound in TAG_BOUNDS]
    written = caption_figures([row for path in drafts for row in read_rows(path)])
    checks += [_check(name, written[name], *bound) for name, *bound in CAPTION_BOUNDS]
    arms = {arm: _by_name(metrics) for arm, metrics in read_json(text)["arms"].items()}
    for metric in ARM_METRICS:
        for a, b in pairwise(ARM_ORDER):
            gap = arms[a][metric]["ci_low"] - arms[b][metric]["ci_high"]
            checks.append(_check(f"{metric}_{a}_above_{b}", gap, ">", 0))
    accuracy = _by_name(read_json(genrecnn)["metrics"])["clip_accuracy"]["value"]
    checks.append(_check("genre_classifier_accuracy", accuracy, ">=", GENRE_ACCURACY))
    checks += _tcav_checks(read_rows(tcav))
    write_json(output, checks)
    print(summary(checks))


def caption_figures(drafts: list[dict]) -> dict[str, float]:
    """Return what the gate makes of drafts, rows of `schemas.DRAFTS`: shares in [0, 1].

    Recall is the mean share of an item's tags that its text names: of first drafts, then of those
    that passed; yield is the share of items of which a draft passed.
    """
    first = [row["tag_recall"] for row in drafts if row["attempt"] == 0]
    passed = [row["tag_recall"] for row in drafts if row["status"] == "ok"]
    kept = max(len(passed), 1)
    return {
        "caption_recall_before_gate": sum(first) / len(first),
        "caption_recall": sum(passed) / kept,
        "captions_naming_all_tags": sum(recall == 1 for recall in passed) / kept,
        "caption_yield": len(passed) / len(first),
    }


def _by_name(metrics: list[dict]) -> dict[str, dict]:
    return {metric["name"]: metric for metric in metrics}


def _check(name: str, value: float, comparison: str, limit: float) -> dict:
    return {
        "name": name,
        "value": float(value),
        "bound": f"{comparison} {limit:g}",
        "holds": bool(_HOLDS[comparison](value, limit)),
    }


def _tcav_checks(rows: list[dict]) -> list[dict]:
    """Check the planted relations: the alignment of a significant cell has the right sign."""
    cells = {}  # (genre, concept) -> the most aligned significant cell of either sign, over layers
    for row in rows:
        if row["control"] == "" and row["significant"]:
            key = row["genre"], row["concept"]
            if key not in cells or abs(row["alignment"]) > abs(cells[key]):
                cells[key] = row["alignment"]
    checks = [
        _check(
            f"tcav_{genre}_{'_or_'.join(concepts)}".replace(" ", "_"),
            max(cells.get((genre, concept), 0.0) for concept in concepts),
            ">",
            0,
        )
        for genre, concepts in PLANTED
    ]
    opposed = [
        genre
        for genre in {row["genre"] for row in rows}
        if cells.get((genre, "slow tempo"), 0) * cells.get((genre, "fast tempo"), 0) < 0
    ]
    checks.append(_check("tcav_genres_slow_against_fast", len(opposed), ">=", 1))
    shuffled = [row["significant"] for row in rows if row["control"] == "shuffled"]
    share = sum(shuffled) / max(len(shuffled), 1)
    checks.append(_check("tcav_shuffled_significant", share, "<=", SHUFFLED_SHARE))
    return checks


def summary(checks: list[dict]) -> str:
    """Return checks as a table in text."""
    lines = [f"checks: {sum(check['holds'] for check in checks)} of {len(checks)} hold"]
    for check in checks:
        mark = "ok" if check["holds"] else "NOT"
        lines.append(f"  {mark:<4}{check['name']:<52} {check['value']:8.3f}  {check['bound']}")
    return "\n".join(lines)
