"""CLAP: how well clips and captions agree, and embeddings for the Frechet audio distance.

**Source:** Wu et al. 2023. **Differs:** the paper embeds one random 10 s crop of a 30 s clip; here
all of a clip is embedded, in fixed windows.
"""

from dataclasses import asdict, dataclass

import numpy as np
from scipy.stats import rankdata

from conceptcaps import embedders, io, results, schemas, seeding
from conceptcaps.clips import iter_clips
from conceptcaps.embedders import embed_texts, embed_waves, pool
from conceptcaps.errors import InputError

_NOISE_RMS = 0.1  # white noise at -20 dBFS: about the level of music, with few peaks beyond 1
_BOOTSTRAPS = 1000
_POOL_CHUNK = 1024  # rows of the retrieval matrix in memory at a time


@dataclass(frozen=True)
class Spec:
    """Config section `scores.clap`."""

    backend: str  # laion_clap or transformers
    model: str  # hub id, or local directory when revision is null
    revision: str | None
    checkpoint: str | None  # file in `model`; laion_clap only
    architecture: str | None  # of the audio tower, e.g. HTSAT-base; laion_clap only
    window_s: float  # seconds; clips are cut into such windows
    batch_size: int  # windows, or captions, embedded together


def score_shard(*, audio, captions, spec: Spec, output) -> None:
    """Score the clips of a shard: rows of `schemas.CLAP`, in the order of the audio table.

    clap_score is the cosine of the caption's embedding and the clip's, the renormalised mean of its
    windows' embeddings; clap_min and clap_max are cosines of single windows. In [-1, 1].

    Raises:
        InputError: a clip has no caption or cannot be decoded; the checkpoint is missing or broken.
    """
    ids = io.read_table(audio, ["id"])["id"].to_pylist()
    texts = _captions_of(ids, captions)
    rows = []
    if ids:
        embedder = load_embedder(spec)
        text_vectors, cut = embed_texts(embedder, texts, batch_size=spec.batch_size)
        sizes = {"window_s": spec.window_s, "batch_size": spec.batch_size}
        waves = (wave for _, wave in iter_clips(audio, embedder.sampling_rate_hz))
        per_clip = embed_waves(embedder, waves, clips=len(ids), **sizes)
        rows = [_row(*item) for item in zip(ids, per_clip, text_vectors, cut, strict=True)]
    io.write_table(output, rows, schemas.CLAP)


def embed_reference(
    *, clips, controls: int, spec: Spec, seed: int, output, controls_output
) -> None:
    """Embed the reference corpus, and controls of its median duration, as `schemas.EMBEDDINGS`.

    Args:
        clips: GENRE_CLIPS table.
        controls: how many white-noise clips (noise-0000, ...: Gaussian, -20 dBFS RMS) and how many
            silent ones (silence-0000, ...: all samples 0, hence equal embeddings).
        spec: config.
        seed: the global seed; each noise clip has its own.
        output: embeddings of the reference.
        controls_output: embeddings of the controls.

    Raises:
        InputError: as `score_shard`; or the table is empty.
    """
    table = io.read_table(clips, ["id", "duration_s"])
    if not len(table):
        raise InputError(f"{clips}: no clips. A Frechet distance needs a reference corpus.")
    ids = table["id"].to_pylist()
    embedder = load_embedder(spec)
    sizes = {"window_s": spec.window_s, "batch_size": spec.batch_size}
    waves = (wave for _, wave in iter_clips(clips, embedder.sampling_rate_hz))
    _write_embeddings(output, ids, embed_waves(embedder, waves, clips=len(ids), **sizes))
    samples = round(float(np.median(table["duration_s"])) * embedder.sampling_rate_hz)
    noise_ids = [f"noise-{i:04d}" for i in range(controls)]
    silence_ids = [f"silence-{i:04d}" for i in range(controls)]
    noise = (_white_noise(noise_id, samples, seed) for noise_id in noise_ids)
    embedded = embed_waves(embedder, noise, clips=controls, **sizes)
    silence = embed_waves(embedder, [np.zeros(samples, np.float32)], clips=1, **sizes)
    _write_embeddings(controls_output, noise_ids + silence_ids, embedded + silence * controls)


def summarise(*, shards: dict, spec: Spec, seed: int, output) -> None:
    """Write {"arms": {arm: [metric, ...]}}: CLAP scores with baselines, and retrieval.

    For each arm: clap_score, mean over clips; clap_shuffled, the same with every clip given the
    caption of another (a derangement); clap_auc, the chance that a matched pair scores above a
    shuffled one; retrieval_r1 and retrieval_r10, the share of captions whose own clip is among the
    1 or 10 nearest of N clips, ties counted against it. Retrieval depends on N: it is done among N
    clips of each arm, drawn at random, N being the smallest arm's. Intervals: bootstrap over clips.

    Raises:
        InputError: an arm has fewer than 2 clips.
    """
    tables = {arm: _read_scored(arm, paths) for arm, paths in shards.items()}
    n_pool = min(len(ids) for ids, _, _ in tables.values())
    recipe = {
        **asdict(spec),
        "seed": seed,
        "bootstraps": _BOOTSTRAPS,
        "retrieval_pool": n_pool,
        **results.versions("torch", "transformers"),
    }
    arms = {
        arm: _arm_metrics(arm, *table, n_pool=n_pool, seed=seed, recipe=recipe)
        for arm, table in tables.items()
    }
    io.write_json(output, {"arms": arms})


def load_embedder(spec: Spec) -> embedders.TransformersClap | embedders.LaionClap:
    """Load the checkpoint and check that it takes windows of the length asked for.

    Raises:
        InputError: the checkpoint is missing, or its windows are shorter.
    """
    if spec.backend == "laion_clap":
        embedder = embedders.LaionClap(
            model=spec.model,
            revision=spec.revision,
            checkpoint=spec.checkpoint,
            architecture=spec.architecture,
        )
    else:
        embedder = embedders.TransformersClap(model=spec.model, revision=spec.revision)
    if spec.window_s > embedder.window_s:
        raise InputError(
            f"scores.clap.window_s: {spec.window_s} s, but {spec.model} takes at most "
            f"{embedder.window_s} s. Lower it."
        )
    return embedder


def _row(clip_id: str, windows: np.ndarray, text: np.ndarray, cut: bool) -> dict:
    clip = pool(windows)
    per_window = windows @ text
    return {
        "id": clip_id,
        "clap_score": float(clip @ text),
        "clap_min": float(per_window.min()),
        "clap_max": float(per_window.max()),
        "text_truncated": bool(cut),
        "audio_embedding": clip,
        "text_embedding": text,
    }


def _captions_of(ids: list[str], path) -> list[str]:
    texts = {row["id"]: row["caption"] for row in io.read_rows(path, ["id", "caption"])}
    for clip_id in ids:
        if not texts.get(clip_id):
            raise InputError(f"{path}: no caption for clip {clip_id}. Remake captions and audio.")
    return [texts[clip_id] for clip_id in ids]


def _white_noise(noise_id: str, samples: int, seed: int) -> np.ndarray:
    rng = seeding.item_rng(seed, "clap/controls", noise_id)
    return _NOISE_RMS * rng.standard_normal(samples, dtype=np.float32)


def _write_embeddings(path, ids: list[str], per_clip: list[np.ndarray]) -> None:
    rows = [
        {"id": clip_id, "audio_embedding": pool(windows)}
        for clip_id, windows in zip(ids, per_clip, strict=True)
    ]
    io.write_table(path, rows, schemas.EMBEDDINGS)


def _read_scored(arm: str, paths) -> tuple[list[str], np.ndarray, np.ndarray]:
    """Return ids, audio and text embeddings [N, D] of an arm, ordered by id."""
    columns = ["id", "audio_embedding", "text_embedding"]
    tables = [io.read_table(path, columns) for path in paths]
    rows = sorted(
        (
            row
            for table in tables
            for row in zip(*(table[c].to_numpy() for c in columns), strict=True)
        ),
        key=lambda row: row[0],
    )
    if len(rows) < 2:
        raise InputError(f"{paths[0]}: arm {arm} has {len(rows)} clips; at least 2 are needed.")
    ids, audio, text = zip(*rows, strict=True)
    return list(ids), np.stack(audio), np.stack(text)


def _arm_metrics(arm, ids, audio, text, *, n_pool, seed, recipe) -> list[dict]:
    matched = np.einsum("nd,nd->n", audio, text, dtype=np.float64)
    order = seeding.item_rng(seed, "clap/shuffle", arm).permutation(len(ids))
    shuffled = np.empty_like(matched)
    # Each clip gets the caption of the next in a random circle: never its own.
    shuffled[order] = np.einsum(
        "nd,nd->n", audio[order], text[np.roll(order, -1)], dtype=np.float64
    )
    by_hash = sorted(range(len(ids)), key=lambda i: seeding.item_seed(seed, "clap/pool", ids[i]))
    drawn = by_hash[:n_pool]
    ranks = retrieval_ranks(audio[drawn], text[drawn])
    means = {
        "clap_score": (matched, "higher"),
        "clap_shuffled": (shuffled, "none"),
        "retrieval_r1": (ranks <= 1, "higher"),
        "retrieval_r10": (ranks <= 10, "higher"),
    }
    metrics = [
        results.MetricResult(
            name,
            *results.bootstrap_mean(values, n_boot=_BOOTSTRAPS, seed=seed),
            len(values),
            direction,
            recipe,
        )
        for name, (values, direction) in means.items()
    ]
    metrics.insert(2, _auc_metric(matched, shuffled, seed=seed, recipe=recipe))
    for metric in metrics:
        print(
            f"{arm}: {metric.name} {metric.value:.4f} [{metric.ci_low:.4f}, {metric.ci_high:.4f}]"
        )
    return [asdict(metric) for metric in metrics]


def retrieval_ranks(audio: np.ndarray, text: np.ndarray) -> np.ndarray:
    """Return for each caption [N] the rank (1 = nearest) of its own clip among all clips.

    Clips that are as near as its own count as nearer.
    """
    ranks = []
    for start in range(0, len(text), _POOL_CHUNK):
        cosines = text[start : start + _POOL_CHUNK] @ audio.T  # (chunk, N)
        rows = np.arange(len(cosines))
        own = cosines[rows, start + rows]
        ranks.append((cosines >= own[:, None]).sum(axis=1))
    return np.concatenate(ranks)


def matched_auc(audio: np.ndarray, text: np.ndarray) -> float:
    """Return the AUC of rows' own pairs against pairs with the next row's text, [N, D] each."""
    matched, shuffled = ((audio * pair).sum(axis=1) for pair in (text, np.roll(text, 1, axis=0)))
    return auc(matched, shuffled)


def auc(positive: np.ndarray, negative: np.ndarray) -> float:
    """Return the chance that a positive score is above a negative one; ties count half."""
    ranks = rankdata(np.concatenate([positive, negative]))[: len(positive)]
    n = len(positive)
    return float((ranks.sum() - n * (n + 1) / 2) / (n * len(negative)))


def _auc_metric(matched, shuffled, *, seed, recipe) -> results.MetricResult:
    rng = np.random.default_rng(seed)
    draws = [
        auc(matched[drawn], shuffled[drawn])
        for drawn in (rng.integers(0, len(matched), len(matched)) for _ in range(_BOOTSTRAPS))
    ]
    low, high = np.quantile(draws, [0.025, 0.975])
    value = auc(matched, shuffled)
    return results.MetricResult(
        "clap_auc", value, float(low), float(high), len(matched), "higher", recipe
    )
