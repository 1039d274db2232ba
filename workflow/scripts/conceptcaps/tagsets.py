"""The dataset's tag sets: distinct samples of the VAE that cover enough categories."""

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
from conceptcaps.taxonomy import by_category

BATCH = 1024  # candidates decoded together; fixed, so that results do not depend on it


@dataclass(frozen=True)
class Spec:
    """The keys of config section `tags` that sampling depends on."""

    items: int  # distinct tag sets to return
    min_categories: int  # of 4, else rejected
    max_tags: int  # else rejected
    max_candidates_per_item: int  # budget


def sample(
    *, model: str | Path, config: str | Path, spec: Spec, seed: int, output: str | Path
) -> None:
    """Write `spec.items` distinct tag sets (`schemas.TAGS`), in the order of their candidates.

    Candidate k depends on (seed, k) alone, so asking for more items keeps the earlier ones. A set's
    id is a hash of its tags: ids are unique because sets are.

    Raises:
        InputError: the budget of candidates is spent (the model has collapsed).
    """
    accepted, tried = [], 0
    reasons = {"too few categories": 0, "too many tags": 0, "seen before": 0}
    seen = set()
    candidates = _candidates(model, config, spec, seed)
    for _ in progress(range(spec.items), what="tag sets"):
        for tags, categories, candidate_seed in candidates:
            tried += 1
            set_id = tag_set_id(tags)
            covered = sum(bool(categories[category]) for category in CATEGORIES)
            if covered < spec.min_categories:
                reasons["too few categories"] += 1
            elif len(tags) > spec.max_tags:
                reasons["too many tags"] += 1
            elif set_id in seen:
                reasons["seen before"] += 1
            else:
                seen.add(set_id)
                accepted.append(_row(set_id, tags, categories, candidate_seed))
                break
    rejected = ", ".join(f"{count} {reason}" for reason, count in reasons.items())
    if len(accepted) < spec.items:
        raise InputError(
            f"tags.items: only {len(accepted)} of {spec.items} distinct tag sets after {tried} "
            f"candidates (rejected: {rejected}). Lower tags.items, raise "
            "tags.max_candidates_per_item, or fit another vae.preset."
        )
    print(f"accepted {len(accepted)} of {tried} candidates (rejected: {rejected})")
    write_table(output, accepted, TAGS)


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
