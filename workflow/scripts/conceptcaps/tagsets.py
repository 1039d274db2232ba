"""The dataset's tag sets: distinct samples of the VAE that cover enough categories."""

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from conceptcaps import vae
from conceptcaps.distill import tag_set_id
from conceptcaps.errors import InputError
from conceptcaps.io import write_table
from conceptcaps.runlog import progress
from conceptcaps.schemas import CATEGORIES, TAGS, TAGS_OF
from conceptcaps.seeding import item_seed
from conceptcaps.taxonomy import by_category, load_exclusive

BATCH = 1024  # candidates decoded together; fixed, so that results do not depend on it


@dataclass(frozen=True)
class Spec:
    """The keys of config section `tags` that sampling depends on."""

    items: int  # distinct tag sets to return
    min_categories: int  # of 4, else rejected
    max_tags: int  # else rejected
    max_candidates_per_item: int  # budget


def sample(
    *,
    model: str | Path,
    config: str | Path,
    taxonomy_file: str | Path,
    spec: Spec,
    seed: int,
    output: str | Path,
) -> None:
    """Write `spec.items` distinct tag sets (`schemas.TAGS`), in the order of their candidates.

    Candidate k depends on (seed, k) alone, so asking for more items keeps the earlier ones. A set's
    id is a hash of its tags: ids are unique because sets are. `rejection` says which candidates are
    left out.

    Raises:
        InputError: the budget of candidates is spent (the model has collapsed).
    """
    accepted, tried = [], 0
    reasons = Counter()
    seen = set()
    groups = load_exclusive(taxonomy_file)
    candidates = _candidates(model, config, spec, seed)
    for _ in progress(range(spec.items), what="tag sets"):
        for tags, categories, candidate_seed in candidates:
            tried += 1
            set_id = tag_set_id(tags)
            reason = rejection(categories, spec, groups)
            if reason is None and set_id in seen:
                reason = "seen before"
            if reason is None:
                seen.add(set_id)
                accepted.append(_row(set_id, tags, categories, candidate_seed))
                break
            reasons[reason] += 1
    rejected = ", ".join(f"{count} {reason}" for reason, count in reasons.items()) or "none"
    if len(accepted) < spec.items:
        raise InputError(
            f"tags.items: only {len(accepted)} of {spec.items} distinct tag sets after {tried} "
            f"candidates (rejected: {rejected}). Lower tags.items, raise "
            "tags.max_candidates_per_item, or fit another vae.preset."
        )
    print(f"accepted {len(accepted)} of {tried} candidates (rejected: {rejected})")
    write_table(output, accepted, TAGS)


def rejection(categories: dict[str, list[str]], spec: Spec, groups: list[list[str]]) -> str | None:
    """Return why a tag set, {category: tags}, is no sample of the dataset; None if it may be one.

    `groups`: no two tags of one may meet (`taxonomy.load_exclusive`).
    """
    tags = {tag for group in categories.values() for tag in group}
    if sum(map(bool, categories.values())) < spec.min_categories:
        return "too few categories"
    if len(tags) > spec.max_tags:
        return "too many tags"
    if any(len(tags.intersection(group)) > 1 for group in groups):
        return "tags that exclude each other"
    return None


def _candidates(model, config, spec: Spec, seed: int) -> Iterator[tuple[list[str], dict, int]]:
    fitted, prior, description = vae.load(model, config)
    names = np.array(description["tags"])
    budget = spec.items * spec.max_candidates_per_item
    for start in range(0, budget, BATCH):
        seeds = [item_seed(seed, "tags", str(k)) for k in range(start, start + BATCH)]
        samples = vae.sample_prior(fitted, prior, [np.random.default_rng(s) for s in seeds])
        for row, candidate_seed in zip(samples, seeds, strict=True):
            tags = names[row].tolist()
            yield tags, by_category(tags, description["taxonomy"]), candidate_seed


def _row(set_id: str, tags: list[str], categories: dict, candidate_seed: int) -> dict:
    return {
        "id": set_id,
        "aspect_list": sorted(tags),
        **{TAGS_OF[category]: categories[category] for category in CATEGORIES},
        "given": [],
        "seed": candidate_seed,
    }
