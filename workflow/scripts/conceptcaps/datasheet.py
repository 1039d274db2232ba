"""The datasheet of a dataset: the questions of Gebru et al., Datasheets for Datasets, 2021."""

from pathlib import Path

import yaml

from conceptcaps.build import Build
from conceptcaps.card import biases, limitations, steps
from conceptcaps.licences import sources, terms_of


def write_datasheet(path: Path, build: Build) -> None:
    """Write DATASHEET.md: motivation, composition, collection, cleaning, uses, distribution."""
    settings = build.settings
    synthetic = settings["sources"]["musiccaps"]["kind"] == "synthetic"
    table = sources(settings)[0]
    lost = settings["tags"]["items"] - build.total
    sections = {
        "Motivation": {
            "For what purpose was it created?": "To test what music models know: concept-based "
            "interpretability needs clips that have a concept and clips that have not, and no "
            "collected data set says so reliably."
            + (" This build is a miniature that shows the workflow." if synthetic else ""),
            "Who created it?": f"Whoever ran the ConceptCaps Workflow (run `{build.run_id}`). The "
            "method is that of arXiv:2601.14157.",
        },
        "Composition": {
            "What is a row?": "A set of tags from four categories, a caption written from them and "
            "a clip played from the caption.",
            "How many are there?": f"{build.total:,}, {build.hours:.2f} hours of audio: "
            + ", ".join(f"{n:,} {split}" for split, n in build.counts["default"].items())
            + ".",
            "Is it a sample?": "Every tag set is drawn from a model of the source's tag sets; no "
            "clip or caption of the source is in it.",
            "Is anything missing?": f"{lost:,} of {settings['tags']['items']:,} tag sets have no "
            "row, since their caption, clip or score was lost; the run's ledgers say why.",
            "Are there recommended splits?": "Yes: column `split` and the files' names. No tag set "
            "is in two of them; `leakage.json` measures what else they share.",
            "Are there errors or noise?": "\n".join(f"- {text}" for text in limitations(build)),
            "Does it relate to people?": "No. Captions describe music; drafts that name artists "
            "are refused where the run was told how to find them.",
            "Biases": "\n".join(f"- {text}" for text in biases(settings)),
        },
        "Collection and processing": {
            "How were the data made?": "\n".join(f"- {text}" for text in steps(build)),
            "What are the sources?": f"{table.name}, and the models in the card's table.",
            "Over what time?": "In one run. Every setting is in `config.yaml`, every version in "
            "`provenance.json`; each row has its seed.",
            "Was anything reviewed by hand?": "No. Captions passed automatic checks, clips were "
            "scored; nobody listened to every clip.",
        },
        "Uses": {
            "What is it for?": "Concept activation vectors and probes, audits of music models, "
            "captioning and retrieval experiments with known tags.",
            "What should it not be used for?": "Claims about how people play or hear music, "
            "about traditions that the taxonomy does not name, or as recordings of real "
            "instruments.",
        },
        "Distribution and maintenance": {
            "Under which licence?": " ".join(terms_of(sources(settings), build.licence)),
            "How is a version told from another?": f"By its version ({build.version}), its run and "
            "`SHA256SUMS`. A row can be made again from its seed by the same code and models.",
            "Who maintains it?": "Whoever published this folder.",
        },
    }
    body = "\n\n".join(
        f"## {title}\n\n" + "\n\n".join(f"**{q}**\n\n{answer}" for q, answer in questions.items())
        for title, questions in sections.items()
    )
    path.write_text(f"# Datasheet: {build.name}\n\n{body}\n")


def write_citation(path: Path, build: Build) -> None:
    """Write CITATION.cff of the build, the method's paper as its reference."""
    authors = [
        {"family-names": family, "given-names": given}
        for family, given in (
            ("Sienkiewicz", "Bruno"),
            ("Neumann", "Łukasz"),
            ("Modrzejewski", "Mateusz"),
        )
    ]
    paper = {
        "type": "article",
        "title": "ConceptCaps -- a Distilled Concept Dataset for Interpretability in Music Models",
        "authors": authors,
        "journal": "arXiv preprint arXiv:2601.14157",
        "year": 2026,
    }
    content = {
        "cff-version": "1.2.0",
        "type": "dataset",
        "message": "Cite the paper of the method, and this build by its version and run.",
        "title": build.name,
        "version": build.version,
        "identifiers": [
            {"type": "other", "value": build.run_id, "description": "run of the workflow"}
        ],
        "authors": [{"name": "users of the ConceptCaps Workflow"}],
        "references": [paper],
    }
    path.write_text(yaml.safe_dump(content, sort_keys=False, allow_unicode=True))
