"""The taxonomy: the tags by category, what names them, what they imply and exclude."""

from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import yaml

from conceptcaps.categories import CATEGORIES
from conceptcaps.errors import InputError, nearest

EXCLUSIVE, IMPLIES, COMPOUNDS = "exclusive", "implies", "compounds"
SECTIONS = (EXCLUSIVE, IMPLIES, COMPOUNDS)  # the keys of a taxonomy file that are no category
_SafeLoader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)  # the project's file has 5,000 aliases


def load_taxonomy(path: str | Path) -> dict[str, list[str]]:
    """Read a taxonomy's tags, in the order of `CATEGORIES`.

    A category is a list of tags, or a mapping of tags to their aliases (`load_aliases`); the file
    is YAML or JSON. Tags are lower-cased, with single blanks.

    Raises:
        InputError: not such a mapping, an unknown category, an empty category, a tag that is not
            text, a tag twice or in two categories.
    """
    raw = _read(path)
    for category in raw:
        if category not in (*CATEGORIES, *SECTIONS):
            raise InputError(
                f"{path}: unknown category '{category}'; there are {', '.join(CATEGORIES)}."
                f"{nearest(category, (*CATEGORIES, *SECTIONS))}"
            )
    taxonomy, seen = {}, {}
    for category in CATEGORIES:
        tags = raw.get(category)
        if not isinstance(tags, list | dict) or not tags:
            raise InputError(
                f"{path}: category '{category}' needs a list with at least one tag, or a mapping "
                "of tags to their aliases."
            )
        taxonomy[category] = []
        for tag in tags:
            tag = _name(path, f"category '{category}'", tag)
            if tag in seen:
                raise InputError(
                    f"{path}: tag '{tag}' is in category '{seen[tag]}' and in '{category}'; "
                    "keep it in one."
                )
            seen[tag] = category
            taxonomy[category].append(tag)
    return taxonomy


def load_aliases(path: str | Path) -> dict[str, list[str]]:
    """Read what names each tag besides its own spelling: {tag: [alias, ...]}, normalised.

    An alias may name tags of several categories. One that names several of the same category is
    listed under `compounds`, [{tags: [...], aspects: [...]}, ...], so that a slip of the editor is
    told from intent. Tags without aliases are left out: a plain list of tags gives {}.

    Raises:
        InputError: as `load_taxonomy`; aliases that are not a list of text; an alias that is itself
            a tag, twice under its tag, or under two tags of one category; a compound that is not
            such a mapping or names an unknown tag, or less than two.
    """
    taxonomy = load_taxonomy(path)
    raw = _read(path)
    known = vocabulary(taxonomy)
    aliases: dict[str, list[str]] = {}
    for category in CATEGORIES:
        seen: dict[str, str] = {}
        for tag, listed in raw[category].items() if isinstance(raw[category], dict) else ():
            tag = normalise(tag)
            for alias in _aspects(path, f"tag '{tag}'", listed):
                _check_alias(path, alias, known)
                if alias in seen:
                    raise InputError(
                        f"{path}: alias '{alias}' is under '{seen[alias]}' and under '{tag}', both "
                        f"in category '{category}'. Keep it under one, or move it to '{COMPOUNDS}' "
                        "if it names both."
                    )
                seen[alias] = tag
                aliases.setdefault(tag, []).append(alias)
    for compound in _compounds(path, raw):
        tags = _known(path, COMPOUNDS, compound["tags"], known)
        if len(set(tags)) < max(2, len(tags)):
            raise InputError(f"{path}: '{COMPOUNDS}' needs two or more tags each, not {tags}.")
        for alias in _aspects(path, f"compound {tags}", compound["aspects"]):
            _check_alias(path, alias, known)
            for tag in tags:
                if alias in aliases.get(tag, []):
                    raise InputError(f"{path}: alias '{alias}' is under '{tag}' twice.")
                aliases.setdefault(tag, []).append(alias)
    return aliases


def load_implications(path: str | Path) -> dict[str, list[str]]:
    """Read what is true with a tag: {tag: [implied tags]}, transitively closed, sorted.

    The file's section `implies` names direct implications, in any categories. A taxonomy without it
    has none: {}.

    Raises:
        InputError: as `load_taxonomy`; the section is not {tag: [tag, ...]}, names an unknown tag,
            or goes round in a circle; a tag implies two tags of an exclusive group.
    """
    known = vocabulary(load_taxonomy(path))
    direct = _read(path).get(IMPLIES) or {}
    if not isinstance(direct, dict) or not all(isinstance(tags, list) for tags in direct.values()):
        raise InputError(f"{path}: '{IMPLIES}' must be like {{hard rock: [rock]}}.")
    direct = {
        _known(path, IMPLIES, [tag], known)[0]: _known(path, IMPLIES, tags, known)
        for tag, tags in direct.items()
    }
    closed = {tag: sorted(_closure(path, tag, direct, ())) for tag in direct}
    for group in load_exclusive(path):
        for tag, implied in closed.items():
            clash = [member for member in group if member in (tag, *implied)]
            if len(clash) > 1:
                raise InputError(
                    f"{path}: '{tag}' implies {' and '.join(clash)}, but '{EXCLUSIVE}' has them in "
                    f"one group {group}."
                )
    return closed


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
    named = [_known(path, EXCLUSIVE, group, known) for group in groups]
    for group in named:
        if len(group) < 2 or len(set(group)) < len(group):
            raise InputError(
                f"{path}: '{EXCLUSIVE}' has the group {group}; a group needs two or more tags, "
                "each once."
            )
    return named


@dataclass(frozen=True)
class Lookup:
    """What each aspect says.

    Args:
        tags: {aspect: its tags and all that they imply}, as spelled or as `normalise` returns it.
        exact: an aspect must be spelled like its key; else it is normalised first.
    """

    tags: dict[str, list[str]]
    exact: bool

    def of(self, aspect: str) -> list[str]:
        """Return the tags that an aspect names, and all that they imply; [] for another aspect."""
        return self.tags.get(aspect if self.exact else normalise(aspect), [])


def load_lookup(path: str | Path) -> Lookup:
    """Return what each aspect says: the tags' own spellings and their aliases.

    A taxonomy of plain lists matches exactly, letter by letter, as the paper's does. One with
    aliases in any category, or compounds, has its aspects normalised.

    Raises:
        InputError: as `load_aliases` and `load_implications`.
    """
    implied, aliases, raw = load_implications(path), load_aliases(path), _read(path)
    exact = not any(isinstance(raw[category], dict) for category in CATEGORIES)
    exact = exact and not raw.get(COMPOUNDS)
    names = [
        (name if exact else normalise(name), normalise(name))
        for category in CATEGORIES
        for name in raw[category]
    ]
    names += [(alias, tag) for tag, listed in aliases.items() for alias in listed]
    tags: dict[str, set[str]] = {}
    for aspect, tag in names:
        tags.setdefault(aspect, set()).update([tag, *implied.get(tag, [])])
    return Lookup({aspect: sorted(found) for aspect, found in tags.items()}, exact)


def contradictions(tags, groups: list[list[str]]) -> list[list[str]]:
    """Return the tags of each exclusive group that `tags` holds more than one of, sorted."""
    tags = set(tags)
    return [
        sorted(tags.intersection(group)) for group in groups if len(tags.intersection(group)) > 1
    ]


def _read(path: str | Path) -> dict:
    try:
        raw = _parse(Path(path).read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise InputError(f"{path}: cannot be read as YAML or JSON ({error}).") from error
    if not isinstance(raw, dict):
        raise InputError(
            f"{path}: must map each category to its tags, like {{genre: [rock, jazz]}}."
        )
    return raw


@lru_cache(maxsize=2)
def _parse(text: str):
    return yaml.load(text, Loader=_SafeLoader)


def _name(path: str | Path, where: str, text) -> str:
    if not isinstance(text, str) or not text.strip():
        raise InputError(f"{path}: {where} holds {text!r}, which is not text. Quote it.")
    return normalise(text)


def _known(path: str | Path, section: str, tags, known: list[str]) -> list[str]:
    named = [normalise(str(tag)) for tag in tags]
    for tag in named:
        if tag not in known:
            raise InputError(
                f"{path}: '{section}' names '{tag}', which is no tag of the taxonomy."
                f"{nearest(tag, known)}"
            )
    return named


def _aspects(path: str | Path, where: str, listed) -> list[str]:
    if not isinstance(listed, list | None):
        raise InputError(f"{path}: the aliases of {where} must be a list, not {listed!r}.")
    names = [_name(path, where, alias) for alias in listed or []]
    for name in names:
        if names.count(name) > 1:
            raise InputError(f"{path}: {where} lists the alias '{name}' twice.")
    return names


def _check_alias(path: str | Path, alias: str, known: list[str]) -> None:
    if alias in known:
        raise InputError(f"{path}: the alias '{alias}' is itself a tag. Use '{IMPLIES}' for that.")


def _compounds(path: str | Path, raw: dict) -> list[dict]:
    compounds = raw.get(COMPOUNDS) or []
    shaped = isinstance(compounds, list) and all(
        isinstance(entry, dict) and set(entry) == {"tags", "aspects"} for entry in compounds
    )
    if not shaped or not all(isinstance(entry["tags"], list) for entry in compounds):
        raise InputError(
            f"{path}: '{COMPOUNDS}' must be a list like [{{tags: [jazz, blues], aspects: [jazz "
            "blues]}]."
        )
    return compounds


def _closure(path: str | Path, tag: str, direct: dict, above: tuple[str, ...]) -> set[str]:
    if tag in above:
        circle = " -> ".join([*above[above.index(tag) :], tag])
        raise InputError(f"{path}: '{IMPLIES}' goes round in a circle: {circle}.")
    found = set(direct.get(tag, []))
    for parent in direct.get(tag, []):
        found |= _closure(path, parent, direct, (*above, tag))
    return found


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
