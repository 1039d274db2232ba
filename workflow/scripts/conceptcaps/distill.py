"""Distillation of MusicCaps to clean pairs of tags and caption (paper section 3.2)."""

import hashlib
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

from conceptcaps.categories import CATEGORIES, TAGS_OF
from conceptcaps.cleanup import clean_caption
from conceptcaps.errors import InputError
from conceptcaps.io import read_rows, write_json, write_table
from conceptcaps.schemas import DISTILL_LEDGER, PAIRS
from conceptcaps.taxonomy import (
    Lookup,
    by_category,
    contradictions,
    load_exclusive,
    load_lookup,
    load_taxonomy,
)

SPLITS = ("train", "validation", "test")


@dataclass(frozen=True)
class Spec:
    """Config section `distill`, without the taxonomy's path."""

    min_categories: int  # keep rows with tags from at least this many of the 4 categories
    heldout: dict  # {"validation": share, "test": share} of the distinct tag sets


def distill(
    *,
    clips: str | Path,
    taxonomy_file: str | Path,
    spec: Spec,
    seed: int,
    pairs: str | Path,
    ledger: str | Path,
    taxonomy: str | Path,
) -> None:
    """Keep a row if its aspects name tags of enough categories that do not contradict each other.

    An aspect names a tag by its spelling or by an alias (`taxonomy.load_lookup`); what the tags
    imply is added.
    A row with two tags of an exclusive group is dropped: nothing says which of them is wrong.
    Captions are cleaned (`cleanup.clean_caption`); of rows with equal captions and tags the first
    by id stays.

    Writes the kept rows (`schemas.PAIRS`), a ledger with a reason for every dropped row, and the
    taxonomy as JSON. No tag set is in two splits. The result does not depend on row order.

    Raises:
        InputError: the taxonomy is broken or keeps no row at all.
    """
    categories = load_taxonomy(taxonomy_file)
    lookup, groups = load_lookup(taxonomy_file), load_exclusive(taxonomy_file)
    rows = sorted(read_rows(clips), key=lambda row: row["ytid"])
    first: dict[tuple, str] = {}
    kept, entries, reasons = [], [], Counter()
    for row in rows:
        tags = {tag for aspect in row["aspect_list"] for tag in lookup.of(aspect)}
        pair = _pair(row, by_category(tags, categories))
        kind, detail = _objection(pair, spec.min_categories, groups)
        if not kind:
            same = first.setdefault((pair["caption"], *pair["aspect_list"]), row["ytid"])
            if same != row["ytid"]:
                kind, detail = "duplicate", f"caption and tags of {same}"
        if kind:
            reasons[kind] += 1
        else:
            kept.append(pair)
        status, reason = ("dropped", f"{kind}: {detail}") if kind else ("ok", "")
        entries.append({"ytid": row["ytid"], "status": status, "reason": reason})
    if not kept:
        why = ", ".join(f"{count} {kind}" for kind, count in reasons.most_common())
        raise InputError(
            f"{taxonomy_file}: keeps none of the {len(rows)} clips ({why}); "
            f"{_unnamed(rows, lookup, categories)}. Lower distill.min_categories, or spell "
            "the tags as MusicCaps does."
        )
    splits = split_tag_sets(
        {tag_set_id(pair["aspect_list"]) for pair in kept}, shares=spec.heldout, seed=seed
    )
    for pair in kept:
        pair["split"] = splits[tag_set_id(pair["aspect_list"])]
    for split, count in sorted(Counter(pair["split"] for pair in kept).items()):
        print(f"{split}: {count} pairs")
    for kind, count in reasons.most_common():
        print(f"dropped, {kind}: {count}")
    print(f"kept {len(kept)} of {len(rows)} clips, {len(splits)} distinct tag sets")
    write_table(pairs, kept, PAIRS)
    write_table(ledger, entries, DISTILL_LEDGER)
    write_json(taxonomy, categories)


def _pair(row: dict, tags: dict[str, list[str]]) -> dict:
    return {
        "id": row["ytid"],
        "ytid": row["ytid"],
        "caption": clean_caption(row["caption"]),
        "aspect_list": sorted(tag for found in tags.values() for tag in found),
        **{TAGS_OF[category]: tags[category] for category in CATEGORIES},
    }


def _objection(pair: dict, min_categories: int, groups: list[list[str]]) -> tuple[str, str]:
    """Return why a row cannot stay as (kind, detail); ("", "") if it can."""
    covered = [category for category in CATEGORIES if pair[TAGS_OF[category]]]
    if len(covered) < min_categories:
        found = ", ".join(covered) or "none"
        return "too few categories", f"tags from {len(covered)} ({found}), {min_categories} needed"
    clashes = contradictions(pair["aspect_list"], groups)
    if clashes:
        return "contradiction", "; ".join(" and ".join(clash) for clash in clashes)
    if not pair["caption"]:
        return "empty caption", "nothing on the music is left of it"
    return "", ""


def _unnamed(rows: list[dict], lookup: Lookup, categories: dict[str, list[str]]) -> str:
    """Say of which categories no aspect of the rows names a tag."""
    named = {tag for row in rows for aspect in row["aspect_list"] for tag in lookup.of(aspect)}
    unseen = [category for category in CATEGORIES if named.isdisjoint(categories[category])]
    if not unseen:
        return "each category is named by some aspect"
    exact = ", letter by letter" if lookup.exact else ", or like an alias"
    return f"no aspect is spelt like any tag of {', '.join(unseen)}{exact}"


def tag_set_id(tags) -> str:
    """Return 32 hexadecimal digits that name a set of tags, whatever their order."""
    return hashlib.sha256("\x1f".join(sorted(set(tags))).encode()).hexdigest()[:32]


def split_tag_sets(set_ids, *, shares: dict, seed: int) -> dict[str, str]:
    """Assign whole tag sets to splits, in the order of a seeded hash.

    Args:
        set_ids: ids from `tag_set_id`.
        shares: {"validation": share, "test": share}; the rest is training. Counts are rounded.
        seed: another seed gives another assignment.

    Returns:
        {set id: split}.
    """
    ordered = sorted(
        set(set_ids), key=lambda set_id: hashlib.sha256(f"{seed}\x1f{set_id}".encode()).digest()
    )
    n_validation = round(len(ordered) * shares["validation"])
    n_test = round(len(ordered) * shares["test"])
    names = ["validation"] * n_validation + ["test"] * n_test
    names += ["train"] * (len(ordered) - len(names))
    return dict(zip(ordered, names, strict=True))
