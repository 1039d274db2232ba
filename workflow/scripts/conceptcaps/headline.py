"""Where a run's results are and its headline figures: `python -m conceptcaps.headline DIR`."""

import sys
from pathlib import Path

import pyarrow.parquet as pq

from conceptcaps import mini_checks
from conceptcaps.io import read_json, read_table

FIGURES = (  # (file, metric, what it is)
    ("vae/metrics.json", "heldout_jaccard", "tag model: held-out Jaccard"),
    ("vae/metrics.json", "prior_cooccurrence_cosine", "tag model: co-occurrence cosine of samples"),
    (
        "captioner/metrics.json",
        "adapter_logit_difference",
        "captioner: logits moved by the adapter",
    ),
    ("scores/text.json", "tag_recall", "captions: tags named"),
    ("scores/text.json", "bleu4", "captions: BLEU-4"),
    ("scores/text.json", "bertscore_f1", "captions: BERTScore F1"),
    ("scores/clap.json", "clap_score", "clips: CLAP score"),
    ("scores/clap.json", "clap_shuffled", "clips: CLAP score, captions shuffled"),
    ("scores/fad.json", "fad", "clips: Frechet distance to the reference"),
    ("gtzan/metrics.json", "clip_accuracy", "genre classifier: held-out accuracy"),
)


def headline(results: Path) -> str:
    """Return the summary of a finished run as text."""
    table = pq.read_metadata(results / "conceptcaps.parquet")
    lines = [
        f"dataset  {results / 'conceptcaps.parquet'} ({table.num_rows} rows)",
        f"hub      {results / 'hub'}",
    ]
    if (results / "report.zip").is_file():
        lines.append(f"report   {results / 'report.zip'} (unpack, open the .html)")
    lines.append("")
    for file, metric, what in FIGURES:
        content = read_json(results / file)
        arms = content.get("arms", {"": content.get("metrics")})
        for arm, metrics in arms.items():
            for m in metrics:
                if m["name"] == metric:
                    interval = (
                        "" if m["ci_low"] is None else f" [{m['ci_low']:.3f}, {m['ci_high']:.3f}]"
                    )
                    label = f"{what} ({arm})" if arm else what
                    lines.append(f"{label:<58} {m['value']:8.3f}{interval}  n={m['n']}")
    tcav = read_table(results / "tcav/scores.parquet", ["significant", "control"]).to_pylist()
    for control, what in (
        ("", "TCAV: significant cells (concept, genre, layer)"),
        ("planted", "  control, a planted concept: all should be found"),
        ("shuffled", "  control, random labels: few should be"),
    ):
        rows = [row for row in tcav if row["control"] == control]
        found = sum(row["significant"] for row in rows)
        lines.append(f"{what:<58} {found:8d} of {len(rows)}")
    if (results / "checks.json").is_file():
        lines += ["", mini_checks.summary(read_json(results / "checks.json"))]
        lines.append("  what each one says: docs/metrics_miniature.md")
    lines += ["", "arms: conceptcaps = fine-tuned, base = not tuned, zero_shot = no tags given;"]
    lines += [
        "floors, ceilings: human, tag_concat, template, shuffled = a human caption of others,",
        "fluent and off topic: a metric in which it beats base rewards style.",
    ]
    return "\n".join(lines)


if __name__ == "__main__":
    print(headline(Path(sys.argv[1])))
