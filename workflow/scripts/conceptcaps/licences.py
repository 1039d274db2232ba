"""Under which licence a run's data stand, derived from what it was made from."""

import re
from dataclasses import dataclass
from pathlib import Path

import yaml

from conceptcaps.errors import InputError

OWN = "made by this workflow itself"
UNKNOWN = "unknown"
OF_HUB = {  # beginning of a hub id -> licence of the weights or data, a hub identifier
    "facebook/musicgen": "cc-by-nc-4.0",
    "meta-llama/Llama-3.1": "llama3.1",
    "meta-llama/Llama-3.2": "llama3.2",
    "meta-llama/Llama-3.3": "llama3.3",
    "google/MusicCaps": "cc-by-sa-4.0",
}
PERMISSIVE = {OWN, "mit", "apache-2.0", "bsd-2-clause", "bsd-3-clause", "cc0-1.0", "cc-by-4.0"}
CREATIVE_COMMONS = re.compile(r"cc-by(-nc)?(-sa)?-[234]\.0")  # what they inherit, and no -nd
NAMES = {
    "cc-by-nc-4.0": "CC BY-NC 4.0",
    "cc-by-nc-sa-4.0": "CC BY-NC-SA 4.0",
    "cc-by-sa-4.0": "CC BY-SA 4.0",
    "cc-by-4.0": "CC BY 4.0",
    "llama3.1": "Llama 3.1 Community License",
    "llama3.2": "Llama 3.2 Community License",
    "llama3.3": "Llama 3.3 Community License",
    "mit": "MIT",
    "other": "other: see the table of sources",
    OWN: OWN,
    UNKNOWN: "unknown: ask its maker",
}


@dataclass(frozen=True)
class Source:
    """What a part of the data was made from."""

    part: str  # of the data: "captions", "clips", ...
    name: str  # hub id, path or what it is
    revision: str | None
    licence: str  # a hub identifier, OWN or UNKNOWN
    enters: bool  # whether the data contain its work; a model that only measures does not


def sources(settings: dict) -> list[Source]:
    """Return what a run was made from, by its merged config.

    A local model's licence is read from the front matter of its README.md; without one it is
    UNKNOWN. A table given as a file is taken for MusicCaps.
    """
    musiccaps = settings["sources"]["musiccaps"]
    if musiccaps["kind"] == "synthetic":
        table = Source("tags and captions to learn from", "the synthetic source", None, OWN, True)
    else:
        licence = _of_hub("google/MusicCaps" if musiccaps["kind"] == "file" else musiccaps["path"])
        table = Source(
            "tags and captions to learn from",
            musiccaps["path"],
            musiccaps["revision"],
            licence,
            True,
        )
    return [
        table,
        _model("captions", settings["captioner"]["base"], enters=True),
        _model("clips", settings["audio"], enters=True),
        _model("CLAP scores", settings["scores"]["clap"], enters=False),
    ]


def _model(part: str, section: dict, *, enters: bool) -> Source:
    name, revision = section["model"], section["revision"]
    return Source(part, name, revision, _of_hub(name) if revision else _of_local(name), enters)


def _of_hub(name: str) -> str:
    return next((licence for start, licence in OF_HUB.items() if name.startswith(start)), UNKNOWN)


def _of_local(directory: str) -> str:
    card = Path(directory) / "README.md"
    if not card.is_file():
        return UNKNOWN
    _, _, rest = card.read_text().partition("---\n")
    matter, closed, _ = rest.partition("\n---")
    try:
        found = yaml.safe_load(matter) if closed else None
    except yaml.YAMLError as error:
        raise InputError(
            f"{card}: its front matter is not YAML ({error}). Mend or delete it: the data set's "
            "licence is derived from the models' licences."
        ) from error
    licence = found.get("license") if isinstance(found, dict) else None
    if isinstance(licence, list) and len(licence) == 1:  # the hub takes both forms
        licence = licence[0]
    return licence.lower() if isinstance(licence, str) else UNKNOWN


def _is_read(licence: str) -> bool:
    """Return whether this module knows what the licence asks of a work made from its subject."""
    return (
        licence in PERMISSIVE
        or licence.startswith("llama")
        or CREATIVE_COMMONS.fullmatch(licence) is not None
    )


def derive(used: list[Source]) -> str:
    """Return the hub identifier of the licence that all sources of the data allow.

    Non-commercial and share-alike terms are inherited by the whole. Where a source states no
    licence, or one whose terms are not read here (no derivatives, the GPL, 'other'), it is 'other'.
    The Llama licences bind who trains on the texts, not what licence the texts have: the card says
    so.
    """
    terms = [source.licence for source in used if source.enters]
    if not all(map(_is_read, terms)):
        return "other"
    non_commercial = any("-nc" in licence for licence in terms)
    share_alike = any("-sa" in licence for licence in terms)
    return f"cc-by{'-nc' * non_commercial}{'-sa' * share_alike}-4.0"


def dataset_licence(settings: dict, wanted: str | None) -> str:
    """Return the licence of the data set: `wanted`, a hub identifier, or the derived one.

    Raises:
        InputError: `wanted` allows what a source forbids: commercial use, or other terms for what
            is adapted from it. 'other' is left to who wants it.
    """
    used = sources(settings)
    if wanted is None:
        return derive(used)
    for term, freedom in (("-nc", "commercial use"), ("-sa", "other terms for adaptations")):
        if wanted == "other" or term in wanted.lower():
            continue
        for source in used:
            if source.enters and term in source.licence:
                raise InputError(
                    f"dataset.licence: '{wanted}' allows {freedom}, but the {source.part} come "
                    f"from {source.name} ({_named(source.licence)}). Use null: the licence is "
                    f"derived then ({derive(used)})."
                )
    return wanted


def terms_of(used: list[Source], licence: str) -> list[str]:
    """Return, in sentences for the card, what the sources ask of whoever uses the data."""
    entering = [source for source in used if source.enters]
    said = []
    restricted = [source for source in entering if "-nc" in source.licence]
    if restricted:
        said.append(
            f"No commercial use: the {_joined(s.part for s in restricted)} come from "
            f"{_joined(s.name for s in restricted)}, whose licence forbids it."
        )
    unread = [source for source in entering if not _is_read(source.licence)]
    if unread:
        said.append(
            f"What else is asked is not known here: read the licence of "
            f"{_joined(f'{s.name} ({_named(s.licence)})' for s in unread)} before you use the data."
        )
    elif not restricted:
        said.append("No source of this build forbids commercial use: it is a no-NC build.")
    shared = [source for source in entering if "-sa" in source.licence]
    if shared:
        said.append(
            f"Share alike: the {_joined(s.part for s in shared)} are those of "
            f"{_joined(s.name for s in shared)} ({_joined(_named(s.licence) for s in shared)}); "
            "tags and captions adapt them, and adaptations keep these terms."
        )
    for source in entering:
        if source.licence.startswith("llama"):
            said.append(
                f"The {source.part} are output of {source.name} "
                f"({_named(source.licence)}). A model that is trained on them "
                "and given to others must carry 'Llama' at the beginning of its name, and what is "
                "distributed says 'Built with Llama'."
            )
    said.append(
        f"The licence of the data set as a whole is `{licence}`, as this workflow reads the terms "
        "of its sources; that is no legal advice."
    )
    return said


def _named(licence: str) -> str:
    return NAMES.get(licence, licence)


def _joined(words) -> str:
    return " and ".join(dict.fromkeys(words))
