"""Concepts: which clips carry a tag, which tags have enough clips to be tested."""

from dataclasses import dataclass

import numpy as np

from conceptcaps.categories import TAGS_OF
from conceptcaps.errors import InputError, nearest


@dataclass(frozen=True)
class Concept:
    """Which of N clips carry a concept."""

    category: str
    positive: np.ndarray  # [N] bool
    rivals: np.ndarray | None = None  # [N] bool: others of the category, for the relative score


def choose_concepts(
    tag_rows: list[dict],
    ids: list[str],
    taxonomy: dict[str, list[str]],
    *,
    concepts: list[str] | None,
    categories: list[str],
    set_size: int,
) -> tuple[dict[str, Concept], list[dict]]:
    """Return ({tag: Concept} over the clips `ids`, a ledger row per tag that was asked for).

    A tag needs `set_size` clips that carry it and as many that do not. Tags without have the status
    'too few' and their count.

    Args:
        tag_rows: rows of `schemas.TAGS`.
        ids: the clips.
        taxonomy: {category: tags}.
        concepts: tags to choose from; None: all of `categories`.
        categories: of the taxonomy.
        set_size: clips in a set.

    Raises:
        InputError: a tag in `concepts` or a category is not in the taxonomy, or no tag is left.
    """
    category_of = {tag: category for category, tags in taxonomy.items() for tag in tags}
    for category in categories:
        if category not in taxonomy:
            raise InputError(
                f"tcav.categories: '{category}' is not in the taxonomy."
                f"{nearest(category, taxonomy)}"
            )
    for tag in concepts or ():
        if tag not in category_of:
            raise InputError(
                f"tcav.concepts: '{tag}' is not in the taxonomy.{nearest(tag, category_of)}"
            )
    wanted = concepts or [tag for category in categories for tag in taxonomy[category]]
    rows = {row["id"]: row for row in tag_rows}
    for clip_id in ids:
        if clip_id not in rows:
            raise InputError(
                f"tcav: clip {clip_id} has audio but no tags: it is of another run. Delete the "
                "audio and generate it again."
            )
    chosen, fates = {}, []
    for tag in wanted:
        category = category_of[tag]
        carried = [set(rows[clip_id][TAGS_OF[category]]) for clip_id in ids]
        positive = np.array([tag in tags for tags in carried], bool)
        rivals = np.array([bool(tags) for tags in carried], bool) & ~positive
        n = int(positive.sum())
        if min(n, len(ids) - n) >= set_size:
            chosen[tag] = Concept(category, positive, rivals)
            fates.append({"id": tag, "status": "ok", "reason": f"{n} of {len(ids)} clips"})
        else:
            reason = f"{n} of {len(ids)} clips with it, set_size {set_size}"
            fates.append({"id": tag, "status": "too few", "reason": reason})
    refused = ", ".join(
        f"{fate['id']}: {fate['reason'].split()[0]}" for fate in fates if fate["id"] not in chosen
    )
    if not chosen:
        raise InputError(
            f"tcav: no concept has {set_size} clips with and {set_size} without its tag "
            f"(of {len(ids)} clips, with the tag: {refused}). Generate more clips (tags.items) or "
            "lower tcav.set_size."
        )
    if refused:
        print(f"not tested, fewer than {set_size} clips with or without: {refused}")
    print(f"tested: {', '.join(f'{tag}: {c.positive.sum()}' for tag, c in chosen.items())}")
    return chosen, fates
