"""The taxonomy: which tags there are, and in which category each of them is."""

from pathlib import Path

import yaml

from conceptcaps.errors import InputError, nearest
from conceptcaps.schemas import CATEGORIES

EXCLUSIVE, IMPLIES = "exclusive", "implies"  # keys that are no categories


def load_taxonomy(path: str | Path) -> dict[str, list[str]]:
    """Read a taxonomy, {category: [tag, ...]} in YAML or JSON, in the order of `CATEGORIES`.

    Tags are lower-cased and stripped, as aspects are before they are looked up. The file may also
    have groups of exclusive tags (`load_exclusive`).

    Raises:
        InputError: not such a mapping, an unknown category, an empty category, a tag that is not
            text, a tag twice or in two categories.
    """
    raw = _read(path)
    for category in raw:
        if category not in (*CATEGORIES, EXCLUSIVE, IMPLIES):
            raise InputError(
                f"{path}: unknown category '{category}'; there are {', '.join(CATEGORIES)}."
                f"{nearest(category, CATEGORIES)}"
            )
    taxonomy, seen = {}, {}
    for category in CATEGORIES:
        tags = raw.get(category)
        if not isinstance(tags, list) or not tags:
            raise InputError(f"{path}: category '{category}' needs a list with at least one tag.")
        taxonomy[category] = []
        for tag in tags:
            if not isinstance(tag, str) or not tag.strip():
                raise InputError(
                    f"{path}: category '{category}' holds {tag!r}, which is not text. Quote it."
                )
            tag = normalise(tag)
            if tag in seen:
                raise InputError(
                    f"{path}: tag '{tag}' is in category '{seen[tag]}' and in '{category}'; "
                    "keep it in one."
                )
            seen[tag] = category
            taxonomy[category].append(tag)
    return taxonomy


def load_exclusive(path: str | Path) -> list[list[str]]:
    """Read a taxonomy's `exclusive` groups: no tag set may hold two tags of one group.

    A taxonomy without them has none: [].

    Raises:
        InputError: as `load_taxonomy`; a group is not a list of two or more different tags of the
            taxonomy.
    """
    known = vocabulary(load_taxonomy(path))
    groups = _read(path).get(EXCLUSIVE) or []
    if not isinstance(groups, list) or not all(isinstance(group, list) for group in groups):
        raise InputError(f"{path}: '{EXCLUSIVE}' must be a list of groups, like [[happy, sad]].")
    named = [[normalise(str(tag)) for tag in group] for group in groups]
    for group in named:
        for tag in group:
            if tag not in known:
                raise InputError(
                    f"{path}: '{EXCLUSIVE}' names '{tag}', which is no tag of the taxonomy."
                    f"{nearest(tag, known)}"
                )
        if len(group) < 2 or len(set(group)) < len(group):
            raise InputError(
                f"{path}: '{EXCLUSIVE}' has the group {group}; a group needs two or more tags, "
                "each once."
            )
    return named


def load_implications(path: str | Path) -> dict[str, list[str]]:
    """Read a taxonomy's `implies`: {tag: tags that a set with it holds, too}; {} without."""
    return _read(path).get(IMPLIES) or {}


def _read(path: str | Path) -> dict:
    try:
        raw = yaml.safe_load(Path(path).read_text())
    except (OSError, yaml.YAMLError) as error:
        raise InputError(f"{path}: cannot be read as YAML or JSON ({error}).") from error
    if not isinstance(raw, dict):
        raise InputError(
            f"{path}: must map each category to its tags, like {{genre: [rock, jazz]}}."
        )
    return raw


def normalise(aspect: str) -> str:
    """Return the form in which aspects and tags are compared: lower case, single blanks."""
    return " ".join(aspect.lower().split())


def vocabulary(taxonomy: dict[str, list[str]]) -> list[str]:
    """Return all tags in a fixed order: the axis D of every multi-hot array."""
    return [tag for category in CATEGORIES for tag in taxonomy[category]]


def by_category(tags, taxonomy: dict[str, list[str]]) -> dict[str, list[str]]:
    """Sort tags into {category: tags}, each in the taxonomy's order; other tags are left out."""
    tags = set(tags)
    return {category: [tag for tag in taxonomy[category] if tag in tags] for category in CATEGORIES}
