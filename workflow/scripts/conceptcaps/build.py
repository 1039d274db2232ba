"""What one build of the dataset is: the numbers that its card, datasheet and metadata share."""

import ast
import json
from collections import Counter
from dataclasses import dataclass
from statistics import median

import pyarrow as pa
import pyarrow.compute as pc

from conceptcaps.categories import TAGS_OF
from conceptcaps.hubfields import TEXT_FIELDS
from conceptcaps.leakage import SPLITS, leakage

USABLE_CLIPS = 100  # of a concept: what a TCAV experiment needs


@dataclass(frozen=True)
class Build:
    """A dataset as it was made."""

    name: str
    version: str  # MAJOR.MINOR.PATCH
    run_id: str
    licence: str  # hub identifier
    settings: dict  # the run's merged config
    counts: dict[str, dict[str, int]]  # {subset: {split: rows}}, the whole first, as 'default'
    hours: float  # of all clips together
    verified: int  # clips that the concept audit verified
    audited: int  # clips that it judged, 0: it did not run
    leakage: dict  # see `conceptcaps.leakage`
    coverage: dict[str, dict]  # {category: see `coverage`}
    example: str  # the first training row, as JSON

    @property
    def total(self) -> int:
        """Rows of the whole dataset."""
        return sum(self.counts["default"].values())


def describe(
    table: pa.Table, *, counts: dict, name: str, version: str, licence: str, settings: dict
) -> Build:
    """Return what a dataset table (schema `schemas.DATASET`) is.

    Raises:
        InputError: a tag set lies in two splits.
    """
    splits = table["split"].to_pylist()
    first = splits.index("train") if "train" in splits else 0
    row = table.slice(first, 1).select([f.name for f in TEXT_FIELDS]).to_pylist()[0]
    return Build(
        name=name,
        version=version,
        run_id=table["provenance"][0].as_py(),
        licence=licence,
        settings=settings,
        counts=counts,
        hours=pc.sum(table["duration_s"]).as_py() / 3600,
        verified=pc.sum(table["verified"]).as_py() or 0,
        audited=len(table) - table["verified"].null_count,
        leakage=leakage(
            splits=splits,
            tag_sets=[ast.literal_eval(text) for text in table["aspect_list"].to_pylist()],
            captions=table["caption"].to_pylist(),
        ),
        coverage=coverage(table),
        example=json.dumps(row, indent=2, ensure_ascii=False),
    )


def split_counts(members: dict, splits) -> dict[str, dict[str, int]]:
    """Return {subset: {split: rows}} of masks [N] and the rows' splits [N]."""
    return {
        name: {split: int((chosen & (splits == split)).sum()) for split in SPLITS}
        for name, chosen in members.items()
    }


def clips_of_tags(table: pa.Table) -> dict[str, Counter]:
    """Return {category: {tag: number of clips}}."""
    return {
        category: Counter(tag for tags in table[column].to_pylist() for tag in tags)
        for category, column in TAGS_OF.items()
    }


def coverage(table: pa.Table) -> dict[str, dict]:
    """Return, per category, how many tags there are and how many clips a tag has.

    `usable` counts the tags with at least `USABLE_CLIPS` clips. A category without tags is left
    out.
    """
    return {
        category: {
            "tags": len(counts),
            "median_clips": median(counts.values()),
            "rarest": min(counts, key=lambda tag: (counts[tag], tag)),
            "rarest_clips": min(counts.values()),
            "usable": sum(n >= USABLE_CLIPS for n in counts.values()),
        }
        for category, counts in clips_of_tags(table).items()
        if counts
    }
