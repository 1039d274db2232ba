"""The dataset card: front matter that the hub reads, and the run's own figures, for people."""

from pathlib import Path

from huggingface_hub import DatasetCardData

from conceptcaps.errors import InputError
from conceptcaps.evidence import figures

KNOWN_LICENCES = {  # beginning of a hub id -> licence of the weights or data
    "facebook/musicgen": "CC BY-NC 4.0",
    "meta-llama/Llama-3.1": "Llama 3.1 Community License",
    "meta-llama/": "the Llama licence of that version",
    "google/MusicCaps": "CC BY-SA 4.0",
}
SIZES = {1_000: "n<1K", 10_000: "1K<n<10K", 100_000: "10K<n<100K", 1_000_000: "100K<n<1M"}
FIELDS = (
    ("id", "string", "identifier of the row, unique in the data set"),
    ("caption", "string", "English description written from the tags"),
    ("aspect_list", "string", "all tags, as a printed Python list"),
    ("genre_aspects", "list of strings", "the tags that are genres"),
    ("mood_aspects", "list of strings", "the tags that are moods"),
    ("instrument_aspects", "list of strings", "the tags that name instruments or voices"),
    ("tempo_aspects", "list of strings", "the tags about tempo"),
    ("file_name", "Audio", "the clip, mono 16-bit FLAC; only in the configs with audio"),
    ("clap_score", "float64", "CLAP's cosine between caption and clip"),
    ("duration_s", "float64", "length of the clip in seconds"),
    ("seed", "uint64", "seed of the clip"),
    ("provenance", "string", "identifier of the run that made the row"),
)
CITATION = """```bibtex
@article{sienkiewicz2026conceptcaps,
  title={ConceptCaps -- a Distilled Concept Dataset for Interpretability in Music Models},
  author={Sienkiewicz, Bruno and Neumann, {\\L}ukasz and Modrzejewski, Mateusz},
  journal={arXiv preprint arXiv:2601.14157},
  year={2026}
}
```"""
LOADING = """```python
from datasets import load_dataset

captions = load_dataset("path/to/this/folder", "default")
clips = load_dataset("path/to/this/folder", "audio")
```

Decoding `file_name` on access needs `torchcodec`. Without it, the FLAC bytes can be read directly:

```python
import io

import soundfile
from datasets import Audio

clips = clips.cast_column("file_name", Audio(decode=False))
wave, sampling_rate = soundfile.read(io.BytesIO(clips["train"][0]["file_name"]["bytes"]))
```"""
_TCAV_ROWS = 20  # strongest concept-genre pairs shown on the card


def write_card(path: Path, *, counts, hours, run_id, licence, name, settings, evidence) -> None:
    """Write README.md.

    Args:
        path: the file.
        counts: {subset: {split: rows}}, the whole data set first, as 'default'.
        hours: length of all clips together, h.
        run_id: identifier of the run.
        licence: the hub's identifier of the data set's licence.
        name: pretty name.
        settings: the run's merged config.
        evidence: {stage: content} from `conceptcaps.evidence`.

    Raises:
        InputError: the licence allows commercial use of what a non-commercial model made.
    """
    sources = _sources(settings)
    _check_licence(licence, sources)
    total = sum(counts["default"].values())
    parts = {
        name: f"{total} captions written from sets of musical tags, each with a generated clip, "
        f"{hours:.2f} hours in all. Made by the ConceptCaps Workflow (run `{run_id}`), which "
        "implements the method of arXiv:2601.14157; the run's settings are in `config.yaml`.",
        "Splits": "No tag set lies in two splits. Each subset lies in the next larger one. Every "
        "row of this table exists without and, as config `audio` or with the ending `-audio`, with "
        "the clips.\n\n" + _split_table(counts),
        "Fields": _table(("field", "type", "content"), [(f"`{f}`", t, c) for f, t, c in FIELDS]),
        "Loading": LOADING,
        "Figures of this run": _figures(evidence),
        "Sources": _table(("part", "source", "revision", "licence"), sources),
        "Limitations": _limitations(settings),
        "Licence": f"`{licence}`. Whoever uses the data also has to keep the terms of its sources: "
        "tags and captions derive from MusicCaps (CC BY-SA 4.0) where that was the source; the "
        "language model wrote the captions and the music model made the clips, each under the "
        "licence in the table above.",
        "Citation": CITATION,
    }
    body = "\n\n".join(
        f"{'#' if title == name else '##'} {title}\n\n{text}" for title, text in parts.items()
    )
    matter = front_matter(counts, licence=licence, name=name, settings=settings).to_yaml()
    path.write_text(f"---\n{matter}\n---\n\n{body}\n")


def front_matter(counts, *, licence: str, name: str, settings: dict) -> DatasetCardData:
    """Return the metadata block: which files make up which config, licence, size, tags."""
    total = sum(counts["default"].values())
    source = settings["sources"]["musiccaps"]
    return DatasetCardData(
        pretty_name=name,
        language=["en"],
        license=licence,
        annotations_creators=["machine-generated"],
        language_creators=["machine-generated"],
        multilinguality=["monolingual"],
        size_categories=[next((s for n, s in SIZES.items() if total < n), "n>1M")],
        source_datasets=[source["path"]] if source["kind"] == "hub" else None,
        task_categories=["text-to-audio", "text-generation", "audio-classification"],
        tags=["music", "audio", "captions", "concepts", "interpretability", "tcav", "synthetic"],
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
            for subset, splits in counts.items()
            for config in [config_name(subset, audio=with_audio)]
        ],
    )


def config_name(subset: str, *, audio: bool) -> str:
    """Return the config of a subset ('default' is the whole), without or with audio."""
    if not audio:
        return subset
    return "audio" if subset == "default" else f"{subset}-audio"


def _sources(settings: dict) -> list[tuple[str, str, str, str]]:
    """Return (part, source, revision, licence) of what the run was made from."""
    musiccaps = settings["sources"]["musiccaps"]
    entries = [
        (
            "tags and captions to learn from",
            musiccaps["path"],
            musiccaps["revision"],
            musiccaps["kind"],
        ),
        ("captions", *_model(settings["captioner"]["base"])),
        ("clips", *_model(settings["audio"])),
        ("CLAP scores", *_model(settings["scores"]["clap"])),
    ]
    return [
        (part, path or kind, revision or "", _licence(path or "", kind))
        for part, path, revision, kind in entries
    ]


def _model(section: dict) -> tuple[str, str | None, str]:
    return section["model"], section["revision"], "hub" if section["revision"] else "local"


def _licence(path: str, kind: str) -> str:
    if kind == "synthetic":
        return "made by the workflow's own grammar"
    if kind == "file":
        return "that of the table given by the user; MusicCaps is CC BY-SA 4.0"
    known = next((text for start, text in KNOWN_LICENCES.items() if path.startswith(start)), None)
    return known or ("of a local model: ask its maker" if kind == "local" else "see its page")


def _check_licence(licence: str, sources: list[tuple[str, str, str, str]]) -> None:
    for part, source, _, terms in sources:
        if "-NC" in terms and "-nc" not in licence.lower():
            raise InputError(
                f"dataset.licence: '{licence}' allows commercial use, but the {part} come from "
                f"{source} ({terms}). Use a non-commercial licence such as cc-by-nc-4.0."
            )


def _limitations(settings: dict) -> str:
    points = [
        "Captions and clips are generated. A clip may not hold what its caption says; its "
        "`clap_score` is a weak sign of whether it does.",
        "MusicGen was not trained to sing: tags about voices are the least reliable.",
        "The tags, and what goes together with what, come from the taxonomy and its source, with "
        "their gaps and their Western centre. All texts are in English.",
    ]
    if settings["sources"]["musiccaps"]["kind"] == "synthetic":
        points.insert(
            0, "This run used the synthetic source: it shows the workflow, not music data."
        )
    return "\n".join(f"- {point}" for point in points)


def _split_table(counts: dict[str, dict[str, int]]) -> str:
    splits = list(counts["default"])
    rows = [(f"`{name}`", *row.values(), sum(row.values())) for name, row in counts.items()]
    return _table(("config", *splits, "total"), rows)


def _figures(evidence: dict[str, dict]) -> str:
    """Return a table of every stage's metrics, then the strongest TCAV pairs."""
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
        for group, metrics in figures(content)
        for row in metrics
    ]
    text = _table(("stage", "of", "figure", "value", "95 % interval", "N"), rows)
    for content in evidence.values():
        if "significant" in content:
            text += "\n\n" + _tcav(content)
    return text


def _tcav(content: dict) -> str:
    strongest = sorted(content["significant"], key=lambda row: -abs(row["effect"] or 0))[
        :_TCAV_ROWS
    ]
    said = [
        f"TCAV: {len(content['significant'])} of {content['pairs']} pairs of concept and genre are "
        "significant after Holm's correction."
    ]
    for name, control in content["controls"].items():
        said.append(f"Control '{name}': {control['significant']} of {control['pairs']}.")
    said.append("(A planted concept should always be found, shuffled labels almost never.)")
    if not strongest:
        return " ".join(said)
    rows = [
        (
            row["layer"],
            row["concept"],
            row["genre"],
            *(_number(row[k]) for k in ("tcav", "null_mean", "p_holm")),
        )
        for row in strongest
    ]
    return (
        " ".join(said)
        + "\n\n"
        + _table(("layer", "concept", "genre", "TCAV", "null", "p (Holm)"), rows)
    )


def _number(value: float | None) -> str:
    return "not defined" if value is None else f"{value:.4g}"


def _interval(row: dict) -> str:
    if row["ci_low"] is None or row["ci_high"] is None:
        return ""
    return f"{_number(row['ci_low'])} to {_number(row['ci_high'])}"


def _table(head, rows) -> str:
    """Return a Markdown table; a bar inside a cell is escaped."""
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join(
        "| " + " | ".join(str(c).replace("|", "\\|") for c in line) + " |" for line in lines
    )
