"""What the editor of a taxonomy reads: which aspects it leaves unnamed, and what naming would add.

Frequencies are numbers of clips that have an aspect, counted once a clip.
"""

import csv
from collections import Counter, defaultdict
from collections.abc import Iterable
from pathlib import Path

from conceptcaps.categories import CATEGORIES
from conceptcaps.io import atomic, read_rows
from conceptcaps.taxonomy import load_aliases, load_lookup, load_taxonomy, normalise, vocabulary

ADDS = {category: f"adds_{category}" for category in CATEGORIES}
UNMAPPED = ("aspect", "clips", "head", "near_tags", *ADDS.values())
HEADS = ("head", "clips", "aspects", "clips_unmapped", "aspects_unmapped", "most_frequent_unmapped")
TAGS = ("category", "tag", "clips", "aliases", "aliases_of_one_clip")
EXAMPLES = 5  # aspects named for a head word


def propose(
    *,
    clips: str | Path,
    taxonomy_file: str | Path,
    min_categories: int,
    unmapped: str | Path,
    heads: str | Path,
    tags: str | Path,
) -> None:
    """Write three CSV files that tell an editor where the taxonomy can grow.

    unmapped: every aspect that names no tag, by frequency, with the tags whose names or aliases
        are whole words of it, and for each category the clips that distillation would keep if the
        aspect named a tag there: those that cover one category too few, and not this one.
    heads: the last words of the aspects ("melody" of "strings melody"), by frequency.
    tags: every tag with its clips, the number of its aliases, and those that occur in one clip
        only, which are to be justified one by one.

    Raises:
        InputError: the taxonomy is broken, or the table of clips cannot be read.
    """
    categories, lookup = load_taxonomy(taxonomy_file), load_lookup(taxonomy_file)
    rows = [
        {normalise(aspect): lookup.of(aspect) for aspect in row["aspect_list"] if aspect.strip()}
        for row in read_rows(clips, ["aspect_list"])
    ]
    counts = Counter(aspect for row in rows for aspect in row)
    named = {aspect for row in rows for aspect, found in row.items() if found}
    added = _added(rows, categories, min_categories)
    near = _Near(vocabulary(categories), load_aliases(taxonomy_file))
    bare = [(aspect, n) for aspect, n in _ordered(counts) if aspect not in named]
    _write(
        unmapped,
        UNMAPPED,
        (
            (aspect, n, head_word(aspect), "; ".join(near.tags(aspect)), *added[aspect])
            for aspect, n in bare
        ),
    )
    _write(heads, HEADS, _heads(counts, named))
    _write(tags, TAGS, _tags(rows, counts, categories, load_aliases(taxonomy_file)))
    share = sum(n for aspect, n in counts.items() if aspect in named) / max(1, counts.total())
    print(f"{len(counts)} aspects, {len(bare)} of them name no tag")
    print(f"{share:.1%} of {counts.total()} aspect occurrences name a tag")


def head_word(aspect: str) -> str:
    """Return the word that a noun phrase in English is about: its last one."""
    return aspect.split()[-1]


def _added(rows: list[dict], categories: dict, min_categories: int) -> dict[str, list[int]]:
    """Count for each aspect and category the clips that a tag there would bring over the bar.

    Contradictions and empty captions are left to the distillation.
    """
    category_of = {tag: category for category, tags in categories.items() for tag in tags}
    added = defaultdict(lambda: [0] * len(CATEGORIES))
    for row in rows:
        covered = {category_of[tag] for found in row.values() for tag in found}
        if len(covered) == min_categories - 1:
            for aspect in (aspect for aspect, found in row.items() if not found):
                for c, category in enumerate(CATEGORIES):
                    added[aspect][c] += category not in covered
    return added


class _Near:
    """Finds tags whose names or aliases are whole words of an aspect, the longest first."""

    def __init__(self, tags: list[str], aliases: dict[str, list[str]]):
        self._named = defaultdict(set)
        for tag in tags:
            for name in (tag, *aliases.get(tag, [])):
                self._named[tuple(name.split())].add(tag)
        self._longest = max(map(len, self._named))

    def tags(self, aspect: str) -> list[str]:
        words = aspect.split()
        found = []
        for size in range(min(len(words), self._longest), 0, -1):
            for start in range(len(words) - size + 1):
                found += sorted(self._named.get(tuple(words[start : start + size]), ()))
        return list(dict.fromkeys(found))[:EXAMPLES]


def _heads(counts: Counter, named: set[str]) -> list[tuple]:
    of_head = defaultdict(list)
    for aspect, n in _ordered(counts):
        of_head[head_word(aspect)].append((aspect, n))
    lines = []
    for head, listed in of_head.items():
        bare = [(aspect, n) for aspect, n in listed if aspect not in named]
        total, left = sum(n for _, n in listed), sum(n for _, n in bare)
        examples = "; ".join(aspect for aspect, _ in bare[:EXAMPLES])
        lines.append((head, total, len(listed), left, len(bare), examples))
    return sorted(lines, key=lambda line: (-line[1], line[0]))


def _tags(rows: list[dict], counts: Counter, categories: dict, aliases: dict) -> list[tuple]:
    clips = Counter(tag for row in rows for tag in {tag for found in row.values() for tag in found})
    lines = []
    for category, tags in categories.items():
        for tag in tags:
            once = [alias for alias in aliases.get(tag, []) if counts[alias] == 1]
            lines.append((category, tag, clips[tag], len(aliases.get(tag, [])), "; ".join(once)))
    return sorted(lines, key=lambda line: (CATEGORIES.index(line[0]), -line[2], line[1]))


def _ordered(counts: Counter) -> list[tuple[str, int]]:
    return sorted(counts.items(), key=lambda item: (-item[1], item[0]))


def _write(path: str | Path, header: tuple, lines: Iterable[tuple]) -> None:
    with atomic(path) as temporary, temporary.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(header)
        writer.writerows(lines)
