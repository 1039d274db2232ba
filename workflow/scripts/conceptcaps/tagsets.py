"""The dataset's tag sets: distinct, coherent, new ones, with enough of every tag."""

from collections import Counter
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

from conceptcaps import tagmetrics, vae
from conceptcaps.categories import CATEGORIES, TAGS_OF
from conceptcaps.constraints import FINE, REASONS, Constraints
from conceptcaps.distill import tag_set_id
from conceptcaps.errors import InputError
from conceptcaps.io import read_rows, write_table
from conceptcaps.results import MetricResult, write_metrics
from conceptcaps.runlog import progress
from conceptcaps.schemas import TAGS
from conceptcaps.seeding import item_seed
from conceptcaps.tagsampler import Sampler
from conceptcaps.taxonomy import by_category, load_exclusive, load_implications

BATCH, BATCH_GIVEN = 1024, 16  # candidates decoded together; results do not depend on them
SEEN, KNOWN = "seen before", "a tag set of MusicCaps itself"


@dataclass(frozen=True)
class Spec:
    """The keys of config section `tags` that sampling depends on."""

    items: int  # distinct tag sets to return
    given: tuple  # tags that every set holds
    forbid: tuple  # tags that no set holds
    min_categories: int  # of 4, else rejected
    max_tags: int  # else rejected
    min_share: float  # of the sets, that every tag reaches
    temperature: float  # of the tags given z
    draws_per_latent: int  # tags are drawn from one z until they are coherent
    max_candidates_per_item: int  # budget


@dataclass
class _Tally:
    """What became of the candidates."""

    tried: int = 0
    first_fine: int = 0
    conditional: int = 0
    reasons: Counter = None


def sample(
    *,
    model: str | Path,
    config: str | Path,
    taxonomy_file: str | Path,
    pairs: str | Path,
    spec: Spec,
    seed: int,
    output: str | Path,
    metrics: str | Path,
) -> None:
    """Write `spec.items` distinct tag sets (`schemas.TAGS`) and figures on them.

    Candidates are rejected when they break a constraint, were accepted before, or are a set of
    MusicCaps. Item n is a free sample, unless a tag is in fewer than `min_share` x n of the sets
    before it: then it is sampled conditional on the tag that lags most. Either way it depends on
    (seed, n) and the items before it alone: asking for more items keeps the earlier ones. A set's
    id is a hash of its tags: ids are unique because sets are.

    Raises:
        InputError: `given` or `forbid` are unknown or contradict each other; the budget of
            candidates is spent (the message names the constraint that rejected most).
    """
    fitted, prior, description = vae.load(model, config)
    constraints = read_constraints(
        description["taxonomy"], taxonomy_file, spec, given=spec.given, forbid=spec.forbid
    )
    sampler = Sampler(fitted, prior, temperature=spec.temperature)
    real = read_rows(pairs, ["aspect_list"])
    known = {tag_set_id(row["aspect_list"]) for row in real}
    tally = _Tally(reasons=Counter())
    accepted = _accept(sampler, constraints, known, spec, seed, tally)
    rows = [
        _row(x, tag, candidate, constraints, description["taxonomy"])
        for x, tag, candidate in progress(accepted, what="tag sets", total=spec.items)
    ]
    write_table(output, rows, TAGS)
    results = _figures(rows, real, constraints, spec, tally)
    write_metrics(metrics, results, rejected=dict(tally.reasons.most_common()))
    for result in results:
        print(f"{result.name}: {result.value:.4f} (n={result.n})")


def read_constraints(taxonomy: dict, taxonomy_file: str | Path, spec, **request) -> Constraints:
    """Return the constraints of a taxonomy file and of the config's `tags`."""
    return Constraints(
        taxonomy,
        groups=load_exclusive(taxonomy_file),
        implications=load_implications(taxonomy_file),
        min_categories=spec.min_categories,
        max_tags=spec.max_tags,
        **request,
    )


def _accept(sampler, constraints, known: set, spec: Spec, seed: int, tally: _Tally) -> Iterator:
    """Yield (set bool [D], the tag it was drawn for or None, candidate seed) for each item."""
    streams, counts = {}, np.zeros(len(constraints.tags), dtype=int)
    names = np.array(constraints.tags)
    reachable = np.array([constraints.impossible(tag) is None for tag in constraints.tags])
    seen = set()
    for item in range(spec.items):
        lag = np.where(reachable, int(spec.min_share * (item + 1)) - counts, 0)
        tag = names[lag.argmax()] if lag.max() > 0 else None
        if tag not in streams:
            streams[tag] = _candidates(sampler, constraints, tag, spec, seed)
        for candidate in streams[tag]:
            x, first, verdict, _ = candidate
            tally.tried += 1
            tally.first_fine += first == FINE
            set_id = tag_set_id(names[x])
            if verdict != FINE:
                reason = REASONS[verdict]
            else:
                reason = SEEN if set_id in seen else KNOWN if set_id in known else None
            if reason is None:
                break
            tally.reasons[reason] += 1
            if tally.tried >= spec.max_candidates_per_item * (item + 1):
                raise _spent(item, tag, spec, tally)
        seen.add(set_id)
        counts += x
        tally.conditional += tag is not None
        yield x, tag, candidate[-1]


def _candidates(sampler, constraints, tag: str | None, spec: Spec, seed: int) -> Iterator[tuple]:
    """Yield (set, verdict on its first draw, verdict, seed), endlessly; all hold `tag`."""
    size, given = (BATCH, []) if tag is None else (BATCH_GIVEN, [str(tag)])
    stage, start = "tags" if tag is None else f"tags/{tag}", 0
    while True:
        seeds = [item_seed(seed, stage, str(k)) for k in range(start, start + size)]
        x, first = sampler.sample_coherent(
            [np.random.default_rng(s) for s in seeds],
            constraints,
            given=given,
            draws=spec.draws_per_latent,
        )
        yield from zip(x, first, constraints.verdict(x), seeds, strict=True)
        start += size


def _spent(item: int, tag: str | None, spec: Spec, tally: _Tally) -> InputError:
    shares = [f"{n / tally.tried:.0%} {reason}" for reason, n in tally.reasons.most_common()]
    wanted = f", the last of them with '{tag}', which tags.min_share asks for" if tag else ""
    return InputError(
        f"tags.items: only {item} of {spec.items} distinct tag sets after {tally.tried} "
        f"candidates{wanted}. Most to blame: {tally.reasons.most_common(1)[0][0]}. Rejected: "
        f"{', '.join(shares)}. Loosen that constraint, lower tags.items, raise "
        "tags.max_candidates_per_item, or fit another vae.preset."
    )


def _row(x, tag: str | None, candidate: int, constraints: Constraints, taxonomy: dict) -> dict:
    tags = [name for name, on in zip(constraints.tags, x, strict=True) if on]
    categories = by_category(tags, taxonomy)
    return {
        "id": tag_set_id(tags),
        "aspect_list": sorted(tags),
        **{TAGS_OF[category]: categories[category] for category in CATEGORIES},
        "given": sorted(constraints.given | ({str(tag)} if tag else set())),
        "seed": candidate,
    }


def _figures(rows: list, real: list, constraints, spec: Spec, tally: _Tally) -> list[MetricResult]:
    """Measure the accepted sets: what the dataset has, after rejection and conditioning.

    tags_free_marginal_mae is that of the sets which were not drawn for a lagging tag: what
    rejection alone distorts; tags_marginal_mae includes the conditional ones.
    """
    x, truth = (
        vae.multi_hot([row["aspect_list"] for row in part], constraints.tags).numpy().astype(bool)
        for part in (rows, real)
    )
    free = np.array([set(row["given"]) == constraints.given for row in rows])
    counts = x.sum(0)[[constraints.impossible(tag) is None for tag in constraints.tags]]
    known, made = set(tagmetrics.keys(truth)), set(tagmetrics.keys(x))
    figures = [
        ("tags_acceptance", len(rows) / tally.tried, tally.tried, "none"),
        ("tags_first_draw_fine", tally.first_fine / tally.tried, tally.tried, "higher"),
        ("tags_conditional", tally.conditional / len(rows), len(rows), "none"),
        ("tags_unique", len(made) / len(rows), len(rows), "higher"),
        ("tags_novel", len(made - known) / len(made), len(made), "higher"),
        ("tags_contradictions", constraints.contradicts(x).sum(), len(rows), "lower"),
        ("tags_unimplied", constraints.unimplied(x).sum(), len(rows), "lower"),
        ("tags_rarest_count", counts.min(), len(rows), "higher"),
        ("tags_below_100", (counts < 100).sum(), len(counts), "lower"),
        ("tags_marginal_mae", tagmetrics.marginal_mae(x, truth), len(rows), "lower"),
        ("tags_free_marginal_mae", tagmetrics.marginal_mae(x[free], truth), free.sum(), "lower"),
        ("tags_cooccurrence_cosine", tagmetrics.cooccurrence_cosine(x, truth), len(rows), "higher"),
        ("tags_per_set", x.sum(1).mean(), len(rows), "none"),
        ("tags_nearest_real", tagmetrics.nearest_jaccard(x, truth).mean(), len(rows), "none"),
    ]
    recipe = {"spec": asdict(spec)}
    return [
        MetricResult(name, float(value), None, None, int(n), direction, recipe)
        for name, value, n, direction in figures
    ]
