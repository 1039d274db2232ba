"""The miniature world put to the test: do clips, tag samples and scores follow what was planted?"""

from collections.abc import Callable, Iterator
from dataclasses import asdict, replace
from itertools import count, islice, pairwise
from pathlib import Path

import numpy as np
import torch

from conceptcaps import (
    clap,
    embeddings,
    frechet,
    grammar,
    io,
    mini_codec,
    mini_judge,
    musicgen,
    runlog,
    schemas,
    seeding,
    synth,
    tagmetrics,
    tagsampler,
    tagsets,
    vae,
    wording,
)
from conceptcaps.clips import encode_flac, iter_clips, sha256
from conceptcaps.constraints import FINE
from conceptcaps.results import MetricResult, versions, write_metrics

LEVEL_RMS, PEAK = 0.1, 0.9  # of every clip, so that no figure depends on the level
TAG_SAMPLES, PLANTED_SAMPLES, LIKELIHOODS = 10_000, 40_000, 2_000
KINDS = ("reference", "played", "codec", "generated", "noise")


def play(*, spec: musicgen.Spec, clip_s: float, items: int, seed: int, output: str | Path) -> None:
    """Make clips of tag sets that no model was trained on: rows of `schemas.MINIATURE`.

    Every set is played by the synthesiser, played through the codec, generated from a concise
    caption that names its tags, and, as a control, white noise; other held-out sets, played, are
    the reference. Ids are `<kind>-<number>`; the four clips of a set share its number.

    Args:
        spec: the MusicGen checkpoint and its sampling (config: audio).
        clip_s: length of the clips in seconds, that of the training.
        items: distinct tag sets, and clips of each of `KINDS`.
        seed: global seed.
        output: table to write.
    """
    generator = musicgen.load_generator(replace(spec, duration_s=clip_s))
    played, captions = _heldout_sets(2 * items, seed=seed)
    waves = torch.from_numpy(
        np.stack(
            [
                synth.render(
                    tags,
                    seed=seeding.item_seed(seed, "miniature/played", str(k)),
                    duration_s=clip_s,
                    sampling_rate_hz=generator.sampling_rate_hz,
                )
                for k, tags in enumerate(played)
            ]
        )
    )
    samples = waves.shape[1]
    rng = seeding.item_rng(seed, "miniature", "noise")
    sources = {
        "reference": waves[items:],
        "played": waves[:items],
        "codec": mini_codec.reconstruct(generator.codec, waves[:items]),
        "generated": _generate(generator, captions[:items], seed=seed),
        "noise": torch.from_numpy(rng.standard_normal((items, samples), dtype=np.float32)),
    }
    rows = []
    for kind in KINDS:
        first = items if kind == "reference" else 0
        for k, wave in enumerate(sources[kind].numpy()):
            data, _ = encode_flac(wave, generator.sampling_rate_hz, peak=PEAK, rms=LEVEL_RMS)
            rows.append(
                {
                    "id": f"{kind}-{k:04d}",
                    "audio": {"bytes": data, "path": None},
                    "sampling_rate": generator.sampling_rate_hz,
                    "duration_s": samples / generator.sampling_rate_hz,
                    "sha256": sha256(data),
                    "kind": kind,
                    "aspect_list": _flat(played[first + k]),
                    "caption": captions[first + k],
                }
            )
    io.write_table(output, rows, schemas.MINIATURE)


def _heldout_sets(count: int, *, seed: int) -> tuple[list[dict], list[str]]:
    """Draw distinct held-out tag sets and write a concise caption of each."""
    sets = {}
    for k in range(100 * count):
        rng = seeding.item_rng(seed, "miniature", str(k))
        tags = grammar.sample_part(rng, held_out=True)
        caption = wording.write_caption(tags, rng, style="concise")
        sets.setdefault(tuple(_flat(tags)), (tags, caption))
        if len(sets) == count:
            break
    tags, captions = zip(*sets.values(), strict=True)
    return list(tags), list(captions)


def _flat(tags: dict[str, list[str]]) -> list[str]:
    return [tag for group in tags.values() for tag in group]


def _generate(generator: musicgen.Generator, captions: list[str], *, seed: int) -> torch.Tensor:
    size = generator.spec.batch_size
    seeds = [seeding.item_seed(seed, "miniature/generated", str(k)) for k in range(len(captions))]
    waves = [
        generator.play(captions[start : start + size], seeds[start : start + size])[:, 0]
        for start in runlog.progress(range(0, len(captions), size), what="generated batches")
    ]
    return torch.from_numpy(np.concatenate(waves))


def measure_clips(
    *,
    clips: str | Path,
    judge: str | Path,
    clap_spec: clap.Spec,
    bootstraps: int,
    seed: int,
    output: str | Path,
) -> None:
    """Measure the clips of `play`, with 95 % intervals by bootstrap over clips; write metrics.

    `<kind>_<figure>` is what the judge heard (`mini_judge.figures`); `<kind>_clap_auc` the chance
    that a caption's own clip agrees with it more than another's; `fad_<kind>` the Frechet distance
    to the reference at equal N in the judge's embedding (CLAP's, which is trained to forget what a
    caption does not say, cannot tell generated clips from codec reconstructions);
    `fad_step_<a>_<b>` how much farther b is than a.

    Args:
        clips: table of `play`.
        judge: model directory.
        clap_spec: config section scores.clap.
        bootstraps: resamples of the clips.
        seed: global seed.
        output: JSON file to write.
    """
    rows, waves = zip(*iter_clips(clips), strict=True)
    of_kind = {kind: [k for k, row in enumerate(rows) if row["kind"] == kind] for kind in KINDS}
    tags = [grammar.by_category(rows[k]["aspect_list"]) for k in of_kind["played"]]
    tagged = mini_judge.multi_hot(tags).numpy() > 0
    captions = [rows[k]["caption"] for k in of_kind["played"]]
    listener = mini_judge.load(judge)
    recipe = {"clap": asdict(clap_spec), "fad": "judge", "seed": seed, "bootstraps": bootstraps}
    recipe |= versions("torch", "transformers")
    draws = list(_resamples(len(tagged), bootstraps, seed))
    logits, embedded = {}, {}
    for kind, members in of_kind.items():
        own = torch.from_numpy(np.stack([waves[k] for k in members]))
        logits[kind], embedded[kind] = mini_judge.read(listener, own)
    told = [kind for kind in KINDS if kind != "reference"]  # every clip beside its caption
    audio, text = _embed([waves[k] for kind in told for k in of_kind[kind]], captions, clap_spec)
    metrics = []
    for kind, vectors in zip(told, np.split(audio, len(told)), strict=True):

        def figures(drawn, kind=kind, vectors=vectors) -> dict[str, float]:
            agreement = {"clap_auc": clap.matched_auc(vectors[drawn], text[drawn])}
            if kind == "noise":
                return agreement
            return agreement | mini_judge.figures(logits[kind][drawn], tagged[drawn])

        metrics += _with_intervals(figures, draws, recipe=recipe, prefix=f"{kind}_")
    metrics += _with_intervals(
        lambda drawn: _distances({kind: x[drawn] for kind, x in embedded.items()}),
        draws,
        recipe=recipe,
        unbiased=False,
    )
    write_metrics(output, metrics)


def _embed(waves, captions: list[str], spec: clap.Spec) -> tuple[np.ndarray, np.ndarray]:
    embedder = clap.load_embedder(spec)
    sizes = {"window_s": spec.window_s, "batch_size": spec.batch_size}
    windows = embeddings.embed_whole(
        embedder, enumerate(waves), where="miniature", total=len(waves), **sizes
    )
    text, _ = embeddings.embed_texts(embedder, captions, batch_size=spec.batch_size)
    return np.stack([embeddings.pool(clip) for clip in windows]), text


def _resamples(n: int, bootstraps: int, seed: int) -> Iterator[np.ndarray]:
    """Yield the clips themselves, then resamples of them: indices [n]."""
    yield np.arange(n)
    rng = seeding.item_rng(seed, "miniature", "bootstrap")
    for _ in range(bootstraps):
        yield rng.integers(0, n, n)


def _with_intervals(
    figures: Callable, draws: list[np.ndarray], *, recipe: dict, prefix: str = "", unbiased=True
) -> list[MetricResult]:
    """Return the figures of the first draw with percentiles over the others.

    Duplicates in resamples raise distances: those intervals are shifted to the value
    (`unbiased=False`).
    """
    measured = [figures(drawn) for drawn in runlog.progress(draws, what=f"{prefix}bootstraps")]
    metrics = []
    for name, value in measured[0].items():
        others = np.array([figure[name] for figure in measured[1:]])
        if not unbiased:
            others += value - others.mean()
        low, high = np.nanquantile(others, [0.025, 0.975])
        metric = MetricResult(
            prefix + name, float(value), float(low), float(high), len(draws[0]), "none", recipe
        )
        print(f"{metric.name}: {value:.4f} [{low:.4f}, {high:.4f}]")
        metrics.append(metric)
    return metrics


def _distances(vectors: dict[str, np.ndarray]) -> dict[str, float]:
    reference = frechet.fit_gaussian(vectors["reference"])
    far = {
        kind: frechet.gaussian_distance(frechet.fit_gaussian(x), reference)
        for kind, x in vectors.items()
        if kind != "reference"
    }
    steps = {f"fad_step_{a}_{b}": far[b] - far[a] for a, b in pairwise(far)}
    return {f"fad_{kind}": value for kind, value in far.items()} | steps


def measure_tags(
    *,
    model: str | Path,
    config: str | Path,
    taxonomy_file: str | Path,
    spec: tagsets.Spec,
    seed: int,
    output: str | Path,
) -> None:
    """Compare accepted samples of the tag model with the grammar's own; write metrics.

    Both sides keep what the constraints let pass. tags_marginal_mae: mean absolute difference
    of the tags' shares; tags_cooccurrence_cosine; tags_exclusive_pairs: sets with two tags of one
    group; tags_possible: share of sets that the grammar can draw; tags_log_likelihood: mean of
    theirs under the grammar, in nats, and grammar_log_likelihood that of its own sets.

    Args:
        model: weights of the tag model.
        config: its description.
        taxonomy_file: the taxonomy with the exclusive groups.
        spec: what makes a sample acceptable (config: tags).
        seed: global seed.
        output: JSON file to write.
    """
    fitted, prior, description = vae.load(model, config)
    constraints = tagsets.read_constraints(description["taxonomy"], taxonomy_file, spec)
    sampler = tagsampler.Sampler(fitted, prior)
    names = description["tags"]

    def accepted(batches: Iterator[np.ndarray], wanted: int) -> np.ndarray:
        kept, found = [], 0
        while found < wanted:
            x = next(batches)
            kept.append(x[constraints.verdict(x) == FINE])
            found += len(kept[-1])
        return np.concatenate(kept)[:wanted]

    def streams(stage: str) -> Iterator[list[np.random.Generator]]:
        rngs = (seeding.item_rng(seed, stage, str(k)) for k in count())
        return iter(lambda: list(islice(rngs, tagsets.BATCH)), [])

    def sets(x: np.ndarray) -> list[dict]:
        return [grammar.by_category([names[d] for d in np.flatnonzero(row)]) for row in x]

    ours = accepted((sampler.sample(rngs) for rngs in streams("miniature/tags")), TAG_SAMPLES)
    drawn = (
        [_flat(grammar.sample_tags(rng)) for rng in rngs] for rngs in streams("miniature/planted")
    )
    truth = accepted((vae.multi_hot(tags, names).numpy() > 0 for tags in drawn), PLANTED_SAMPLES)
    fits = [grammar.log_likelihood(tags) for tags in sets(ours[:LIKELIHOODS])]
    own = [grammar.log_likelihood(tags) for tags in sets(truth[:LIKELIHOODS])]
    figures = {
        "tags_marginal_mae": np.abs(ours.mean(0) - truth.mean(0)).mean(),
        "tags_cooccurrence_cosine": tagmetrics.cooccurrence_cosine(ours, truth),
        "tags_exclusive_pairs": sum(not grammar.compatible(_flat(tags)) for tags in sets(ours)),
        "tags_possible": np.mean(np.isfinite(fits)),
        "tags_log_likelihood": np.mean([fit for fit in fits if np.isfinite(fit)]),
        "grammar_log_likelihood": np.mean(own),
    }
    recipe = {"seed": seed, "spec": asdict(spec), "planted_samples": PLANTED_SAMPLES}
    write_metrics(
        output,
        [
            MetricResult(name, float(value), None, None, TAG_SAMPLES, "none", recipe)
            for name, value in figures.items()
        ],
    )
