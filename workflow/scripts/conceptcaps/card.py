"""The dataset card: front matter that the hub reads, and the run's own figures, for people."""

from pathlib import Path
from types import SimpleNamespace

import jinja2
from huggingface_hub import DatasetCardData

from conceptcaps.build import Build
from conceptcaps.evidence import figures as figures_of
from conceptcaps.hubfields import AUDIO_FIELDS, type_name
from conceptcaps.licences import NAMES, Source, sources, terms_of
from conceptcaps.usage import usage

SIZES = {1_000: "n<1K", 10_000: "1K<n<10K", 100_000: "10K<n<100K", 1_000_000: "100K<n<1M"}
KEYWORDS = ("music", "audio", "captions", "concepts", "interpretability", "tcav", "synthetic")
PAPER = """@article{sienkiewicz2026conceptcaps,
  title={ConceptCaps -- a Distilled Concept Dataset for Interpretability in Music Models},
  author={Sienkiewicz, Bruno and Neumann, {\\L}ukasz and Modrzejewski, Mateusz},
  journal={arXiv preprint arXiv:2601.14157},
  year={2026}
}"""
_TCAV_ROWS = 20  # strongest concept-genre pairs shown on the card


def write_card(path: Path, *, build: Build, evidence: dict, pictures: dict) -> None:
    """Write README.md.

    Args:
        path: the file.
        build: what was made, and from what.
        evidence: {stage: content} from `conceptcaps.evidence`.
        pictures: {file relative to the folder: its caption}.
    """
    used = sources(build.settings)
    parts = {
        build.name: summary(build),
        "Splits": _splits(build),
        "Fields": _table(
            ("field", "type", "content"),
            [(f"`{f.name}`", type_name(f.feature), f.content) for f in AUDIO_FIELDS],
        ),
        "A row": "```json\n" + build.example + "\n```",
        "Use": usage(build.counts),
        "Concepts": _concepts(build),
        "Figures of this run": _figures(evidence, pictures),
        "How it was made": "\n".join(f"{i}. {step}" for i, step in enumerate(steps(build), 1)),
        "Sources": _table(("part", "source", "revision", "licence"), _rows(used)),
        "Biases": _list(biases(build.settings)),
        "Limitations": _list(limitations(build)),
        "Licence": "\n\n".join(terms_of(used, build.licence)),
        "Files": "`data/<config>/<split>-*.parquet` (zstd, a checksum in every page), "
        "`DATASHEET.md`, `croissant.json` (MLCommons Croissant), `leakage.json`, `config.yaml` "
        "(every setting of the run), `provenance.json` (code, package and model versions), "
        "`figures/`, `CITATION.cff`, and `SHA256SUMS` over all of them: `sha256sum --check "
        "SHA256SUMS`.",
        "Citation": f"This build is version {build.version}, run `{build.run_id}`. Its method is "
        f"that of:\n\n```bibtex\n{PAPER}\n```",
    }
    body = "\n\n".join(
        f"{'#' if title == build.name else '##'} {title}\n\n{text}" for title, text in parts.items()
    )
    path.write_text(f"---\n{front_matter(build).to_yaml()}\n---\n\n{body}\n")


def summary(build: Build) -> str:
    """Return the card's first paragraph."""
    first = "The source is synthetic: this build shows the workflow and holds no music data. "
    synthetic = build.settings["sources"]["musiccaps"]["kind"] == "synthetic"
    return (
        f"{first if synthetic else ''}{build.total:,} captions written from sets of musical tags, "
        f"each with a generated clip, {build.hours:.2f} hours in all. The tags are known by "
        "construction, so that positive and negative examples of a musical concept can be drawn "
        f"from it. Version {build.version}, made by the ConceptCaps Workflow "
        f"(run `{build.run_id}`), which implements the method of arXiv:2601.14157."
    )


def front_matter(build: Build) -> DatasetCardData:
    """Return the metadata block: which files make up which config, licence, size, tags."""
    source = build.settings["sources"]["musiccaps"]
    return DatasetCardData(
        pretty_name=build.name,
        language=["en"],
        license=build.licence,
        annotations_creators=["machine-generated"],
        language_creators=["machine-generated"],
        multilinguality=["monolingual"],
        size_categories=[next((s for n, s in SIZES.items() if build.total < n), "n>1M")],
        source_datasets=[source["path"]] if source["kind"] == "hub" else None,
        task_categories=["text-to-audio", "text-generation", "audio-classification"],
        tags=list(KEYWORDS),
        configs=[
            {
                "config_name": config,
                "data_files": [
                    {"split": split, "path": f"data/{config}/{split}-*.parquet"}
                    for split, rows in splits.items()
                    if rows  # the datasets library fails at a split without rows
                ],
                **({"default": True} if config == "default" else {}),
            }
            for with_audio in (False, True)
            for subset, splits in build.counts.items()
            for config in [config_name(subset, audio=with_audio)]
        ],
    )


def config_name(subset: str, *, audio: bool) -> str:
    """Return the config of a subset ('default' is the whole), without or with audio."""
    if not audio:
        return subset
    return "audio" if subset == "default" else f"{subset}-audio"


def steps(build: Build) -> list[str]:
    """Return what was done, in order, with the run's own settings."""
    settings = build.settings
    captioner, audio = settings["captioner"], settings["audio"]
    source = sources(settings)[0]
    return [
        f"The tags of {source.name} were mapped to a taxonomy of four categories "
        f"(`{settings['distill']['taxonomy']}`).",
        f"A beta-VAE (preset `{settings['vae']['preset']}`) learned which tags go together, and "
        f"{settings['tags']['items']:,} distinct tag sets were sampled from it.",
        f"`{captioner['base']['model']}`, fine-tuned on pairs of tags and captions, wrote a "
        "caption for each" + _gate(captioner["gate"]),
        f"`{audio['model']}` played each caption for {audio['duration_s']:g} s.",
        f"`{settings['scores']['clap']['model']}` scored how well clip and caption agree. "
        f"{build.total:,} rows have tags, a caption, a clip and a score; the lost ones are in the "
        "run's ledgers.",
    ]


def _gate(gate: dict) -> str:
    """Return how the gate chose a caption among the drafts; a limit of None does not hold."""
    held = []
    if (recall := gate["min_tag_recall"]) is not None:
        held.append(f"names at least {recall:.0%} of its tags")
    if (unasked := gate["max_unasked_tags"]) is not None:
        held.append(f"names no more than {unasked} others")
    if not held:
        return "."
    return f": the first of at most {gate['drafts']} drafts that {' and '.join(held)}."


def biases(settings: dict) -> list[str]:
    """Return the biases that the data inherit."""
    said = [
        "The taxonomy names what its source names often: traditions that are rare there are rare "
        "or absent here, and its idea of genre is a Western one.",
        "Tags that go together here do so because they did in the source: a concept can stand for "
        "the company it keeps. Hold it against sets that match in the other categories.",
        "The music model plays its idea of a concept (sad is slow and minor, say), and the "
        "language model its idea of how one writes about music. All texts are English.",
    ]
    if settings["sources"]["musiccaps"]["kind"] == "synthetic":
        said[0] = "The tags and what goes together come from a grammar that was written down."
    return said


def limitations(build: Build) -> list[str]:
    """Return what the data cannot be used for, and what is not known."""
    said = [
        "Captions and clips are generated. A clip may not hold what its caption says; its "
        "`clap_score` is a weak sign of whether it does."
        + (
            f" The concept audit verified {build.verified:,} of {build.audited:,} clips."
            if build.audited
            else " The concept audit did not run: `verified` is null."
        ),
        "MusicGen was not trained to sing: tags about voices are the least reliable.",
        "A tag that a row does not have is not known to be absent from the clip.",
        "The data say how a music model plays concepts, not how people do.",
    ]
    if build.settings["sources"]["musiccaps"]["kind"] == "synthetic":
        said.insert(0, "This run used the synthetic source: it shows the workflow, not music data.")
    return said


def caption(template: Path, settings: dict) -> str:
    """Return the caption of a figure: the report's, with the run's settings filled in.

    Raises:
        jinja2.UndefinedError: it names a setting that is not there.
    """
    environment = jinja2.Environment(undefined=jinja2.StrictUndefined, autoescape=False)
    text = environment.from_string(template.read_text())
    filled = text.render(snakemake=SimpleNamespace(config=settings))
    return " ".join(filled.replace("``", "`").split())


def _rows(used: list[Source]) -> list[tuple[str, str, str, str]]:
    return [
        (
            source.part,
            source.name,
            source.revision or "",
            NAMES.get(source.licence, source.licence),
        )
        for source in used
    ]


def _splits(build: Build) -> str:
    names = list(build.counts["default"])
    rows = [(f"`{name}`", *row.values(), sum(row.values())) for name, row in build.counts.items()]
    nearest = [
        f"{found['mean']:.2f} in {split} (largest {found['largest']:.2f})"
        for split, found in build.leakage["nearest_training_set"].items()
    ]
    texts = max(pair["captions"] for pair in build.leakage["shared"].values())
    return (
        "No tag set lies in two splits. Each subset lies in the next larger one. Every row of this "
        "table exists without and, as config `audio` or with the ending `-audio`, with the clips."
        f"\n\n{_table(('config', *names, 'total'), rows)}\n\n"
        f"Distinct sets may still be alike: the mean Jaccard index with the nearest training set "
        f"is {' and '.join(nearest) or 'not defined'}. Captions that lie in two splits: {texts}. "
        "The rest is in `leakage.json`."
    )


def _concepts(build: Build) -> str:
    rows = [
        (
            category,
            c["tags"],
            f"{c['median_clips']:g}",
            f"{c['rarest']} ({c['rarest_clips']})",
            c["usable"],
        )
        for category, c in build.coverage.items()
    ]
    head = ("category", "tags", "median clips of a tag", "rarest (clips)", "tags with 100 clips")
    return _table(head, rows)


def _figures(evidence: dict[str, dict], pictures: dict[str, str]) -> str:
    """Return a table of every stage's metrics, the strongest TCAV pairs, the pictures."""
    rows = [
        (
            stage,
            group.removeprefix("arms "),
            row["name"],
            _number(row["value"]),
            _interval(row),
            row["n"],
        )
        for stage, content in evidence.items()
        for group, metrics in figures_of(content)
        for row in metrics
    ]
    texts = [_table(("stage", "of", "figure", "value", "95 % interval", "N"), rows)]
    texts += [_tcav(content) for content in evidence.values() if "significant" in content]
    texts += [f"![{Path(file).stem}]({file})\n\n{said}" for file, said in pictures.items()]
    return "\n\n".join(texts)


def _tcav(content: dict) -> str:
    strongest = sorted(content["significant"], key=lambda row: -abs(row["effect"] or 0))
    said = [
        f"TCAV: {len(content['significant'])} of {content['pairs']} pairs of concept and genre are "
        "significant after Holm's correction."
    ]
    for name, control in content["controls"].items():
        said.append(f"Control '{name}': {control['significant']} of {control['pairs']}.")
    said.append("(A planted concept should always be found, shuffled labels almost never.)")
    if not strongest:
        return " ".join(said)
    columns = ("tcav", "null_mean", "p_holm")
    rows = [
        (row["layer"], row["concept"], row["genre"], *(_number(row[k]) for k in columns))
        for row in strongest[:_TCAV_ROWS]
    ]
    table = _table(("layer", "concept", "genre", "TCAV", "null", "p (Holm)"), rows)
    return f"{' '.join(said)}\n\n{table}"


def _number(value: float | None) -> str:
    return "not defined" if value is None else f"{value:.4g}"


def _interval(row: dict) -> str:
    if row["ci_low"] is None or row["ci_high"] is None:
        return ""
    return f"{_number(row['ci_low'])} to {_number(row['ci_high'])}"


def _list(points: list[str]) -> str:
    return "\n".join(f"- {point}" for point in points)


def _table(head, rows) -> str:
    """Return a Markdown table; a bar inside a cell is escaped."""
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join(
        "| " + " | ".join(str(c).replace("|", "\\|") for c in line) + " |" for line in lines
    )
