"""Fill the tables of docs/concepts.md, and copy its figures, from a run with the real MusicCaps.

snakemake --cores all tags tag_models tag_sweep results/figures/{distill,latent}.png
python docs/concepts.py results
"""

import re
import shutil
import sys
from collections import Counter
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "workflow/scripts"))

from conceptcaps.io import read_json, read_rows  # noqa: E402 - the library is not installed

MODELS = {
    "data": "real rows",
    "independent": "independent Bernoulli",
    "mixture": "Bernoulli mixture",
    "autoregressive": "autoregressive",
    "vae_paper": "β-VAE, paper",
    "vae_conceptcaps": "β-VAE, ours",
}
HELDOUT = {
    "heldout_jaccard": ("Jaccard ↑", "{:.3f}", 1),
    "heldout_hamming": ("Hamming ↓", "{:.4f}", 1),
    "heldout_log_likelihood": ("ln p, nats a row ↑", "{:.1f}", 1),
}
PRIOR = {
    "prior_cooccurrence_cosine": ("co-occurrence cosine ↑", "{:.4f}", 1),
    "prior_marginal_mae": ("marginal MAE ↓", "{:.4f}", 1),
    "prior_enough_categories": ("≥ 3 categories (%) ↑", "{:.1f}", 100),
    "prior_contradictions": ("contradictions (%) ↓", "{:.1f}", 100),
    "prior_unimplied": ("implied tag missing (%) ↓", "{:.1f}", 100),
    "prior_unique": ("unique (%) ↑", "{:.1f}", 100),
    "prior_novel": ("novel (%) ↑", "{:.1f}", 100),
    "prior_tags_per_set": ("tags a set", "{:.2f}", 1),
    "prior_tags_per_set_w1": ("W1 of tags a set ↓", "{:.2f}", 1),
    "prior_nearest_train": ("nearest training set, Jaccard", "{:.3f}", 1),
    "prior_c2st_auc": ("two-sample AUC, 0.5 best", "{:.3f}", 1),
}
OF_DATA = {  # what real rows against real rows give, beside the figure of the samples
    "prior_cooccurrence_cosine": "data_halves_cosine",
    "prior_marginal_mae": "data_halves_mae",
    "prior_tags_per_set": "data_tags_per_set",
    "prior_nearest_train": "data_nearest_train",
    "prior_c2st_auc": "data_c2st_auc",
}
SWEEP = HELDOUT | PRIOR


def models(results: Path) -> str:
    """Return the comparison of the tag models, held-out rows and prior samples apart."""
    found = {(row["model"], row["name"]): row for row in read_rows(results / "vae/models.parquet")}
    lines = []
    for title, figures in (("held-out test rows", HELDOUT), ("samples of the prior", PRIOR)):
        lines += [f"| {title} | {' | '.join(MODELS.values())} |", "|---" * (len(MODELS) + 1) + "|"]
        for name, (label, form, scale) in figures.items():
            cells = [
                _cell(
                    found.get((model, OF_DATA.get(name) if model == "data" else name)), form, scale
                )
                for model in MODELS
            ]
            lines.append(f"| {label} | {' | '.join(cells)} |")
        lines.append("")
    return "\n".join(lines).strip()


def _cell(row: dict | None, form: str, scale: int) -> str:
    if row is None:
        return ""
    value = form.format(scale * row["value"])
    if row["ci_low"] is None:
        return value
    return f"{value} [{form.format(scale * row['ci_low'])}, {form.format(scale * row['ci_high'])}]"


def sweep(results: Path) -> str:
    """Return the runs of the sweep; the chosen one is bold, those that miss a bar are marked."""
    names = [name for name in SWEEP if name in read_rows(results / "vae/sweep.parquet")[0]]
    labels = [SWEEP[name][0] for name in names]
    lines = [
        f"| β | crossover | {' | '.join(labels)} | all bars |",
        "|---" * (len(names) + 3) + "|",
    ]
    for run in read_rows(results / "vae/sweep.parquet"):
        cells = [f"{run['beta']:g}", f"{run['crossover']:g}"]
        cells += [SWEEP[name][1].format(SWEEP[name][2] * run[name]) for name in names]
        cells = [f"**{cell}**" if run["chosen"] else cell for cell in cells]
        lines.append(f"| {' | '.join(cells)} | {'yes' if run['holds'] else 'no'} |")
    return "\n".join(lines)


def rows(results: Path) -> str:
    """Return what distillation kept, and why it dropped the rest."""
    ledger = read_rows(results / "distill/ledger.parquet")
    pairs = Counter(row["split"] for row in read_rows(results / "distill/pairs.parquet", ["split"]))
    reasons = Counter(row["reason"].split(":")[0] for row in ledger if row["status"] != "ok")
    kept = sum(pairs.values())
    lines = ["| rows of MusicCaps | |", "|---|---|", f"| in all | {len(ledger):,} |"]
    splits = ", ".join(f"{pairs[split]:,} {split}" for split in ("train", "validation", "test"))
    lines += [f"| kept | {kept:,} ({splits}) |"]
    lines += [f"| dropped, {reason} | {count:,} |" for reason, count in reasons.most_common()]
    return "\n".join(lines)


def dataset(results: Path) -> str:
    """Return the figures of the accepted sets."""
    lines = ["| figure | value | N |", "|---|---|---|"]
    for metric in read_json(results / "tags/metrics.json")["metrics"]:
        value = metric["value"]
        shown = f"{value:.4f}".rstrip("0").rstrip(".") if value % 1 else f"{value:.0f}"
        lines.append(f"| `{metric['name']}` | {shown} | {metric['n']:,} |")
    return "\n".join(lines)


def fill(text: str, results: Path) -> str:
    """Return the page with its generated blocks made anew."""
    for block in (rows, sweep, models, dataset):
        name = block.__name__
        pattern = rf"<!-- {name} -->.*?<!-- /{name} -->"
        filled = f"<!-- {name} -->\n{block(results)}\n<!-- /{name} -->"
        text, count = re.subn(pattern, lambda _, filled=filled: filled, text, flags=re.DOTALL)
        assert count == 1, f"docs/concepts.md has no block '{name}'"
    return text


if __name__ == "__main__":
    run = Path(sys.argv[1])
    page = ROOT / "docs/concepts.md"
    page.write_text(fill(page.read_text(encoding="utf-8"), run), encoding="utf-8")
    for figure in ("distill", "latent"):
        shutil.copyfile(run / f"figures/{figure}.png", ROOT / f"docs/{figure}.png")
