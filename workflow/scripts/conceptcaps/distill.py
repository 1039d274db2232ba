"""Distillation of MusicCaps to clean pairs of tags and caption (paper section 3.2)."""

import hashlib
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

from conceptcaps.errors import InputError
from conceptcaps.io import read_rows, write_json, write_table
from conceptcaps.schemas import CATEGORIES, DISTILL_LEDGER, PAIRS, TAGS_OF
from conceptcaps.taxonomy import by_category, load_taxonomy, normalise

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
    """Keep a row if its aspects, matched exactly, are tags of enough categories.

    Writes the kept rows (`schemas.PAIRS`), a ledger with a reason for every row of the input, and
    the taxonomy as JSON. No tag set is in two splits. The result does not depend on row order.

    Raises:
        InputError: the taxonomy is broken or keeps no row at all.
    """
    categories = load_taxonomy(taxonomy_file)
    rows = sorted(read_rows(clips), key=lambda row: row["ytid"])
    kept, entries = [], []
    for row in rows:
        pair, reason = _match(row, categories, spec.min_categories)
        entries.append(
            {"ytid": row["ytid"], "status": "dropped" if reason else "ok", "reason": reason}
        )
        if pair:
            kept.append(pair)
    if not kept:
        raise InputError(
            f"{taxonomy_file}: none of the {len(rows)} clips has tags from {spec.min_categories} "
            "categories. Lower distill.min_categories, or spell the tags as MusicCaps does."
        )
    splits = split_tag_sets(
        {tag_set_id(pair["aspect_list"]) for pair in kept}, shares=spec.heldout, seed=seed
    )
    for pair in kept:
        pair["split"] = splits[tag_set_id(pair["aspect_list"])]
    for split, count in sorted(Counter(pair["split"] for pair in kept).items()):
        print(f"{split}: {count} pairs")
    print(f"kept {len(kept)} of {len(rows)} clips, {len(splits)} distinct tag sets")
    write_table(pairs, kept, PAIRS)
    write_table(ledger, entries, DISTILL_LEDGER)
    write_json(taxonomy, categories)


def _match(row: dict, categories: dict, min_categories: int) -> tuple[dict | None, str]:
    tags = by_category((normalise(aspect) for aspect in row["aspect_list"]), categories)
    covered = [category for category in CATEGORIES if tags[category]]
    if len(covered) < min_categories:
        found = ", ".join(covered) or "none"
        return None, f"tags from {len(covered)} categories ({found}), {min_categories} needed"
    caption = " ".join(row["caption"].split())
    if not caption:
        return None, "empty caption"
    pair = {
        "id": row["ytid"],
        "ytid": row["ytid"],
        "caption": caption,
        "aspect_list": sorted(tag for found in tags.values() for tag in found),
    }
    return pair | {TAGS_OF[category]: tags[category] for category in CATEGORIES}, ""


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
