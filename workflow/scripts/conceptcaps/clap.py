"""CLAP: how well clips and captions agree, clip by clip. `agreement` sums it up.

**Source:** Wu et al. 2023. **Differs:** the paper embeds one random 10 s crop of a 30 s clip; here
all of a clip is embedded, in fixed windows.
"""

from dataclasses import dataclass

import numpy as np
from scipy.stats import rankdata

from conceptcaps import clips, embedders, embeddings, io, schemas
from conceptcaps.errors import InputError


@dataclass(frozen=True)
class Spec:
    """Config section `scores.clap`."""

    backend: str  # laion_clap, transformers, or logmel: without weights, and without texts
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
        hashed = embeddings.embedder_key(embedder, window_s=spec.window_s)
        keys = [embeddings.clip_key(data, hashed) for _, data in clips.iter_sources(audio)]
        text_vectors, cut = embeddings.embed_texts(embedder, texts, batch_size=spec.batch_size)
        per_clip = embeddings.embed_whole(
            embedder,
            clips.iter_sources(audio),
            where=audio,
            window_s=spec.window_s,
            batch_size=spec.batch_size,
            total=len(ids),
        )
        rows = [_row(*item) for item in zip(ids, keys, per_clip, text_vectors, cut, strict=True)]
    io.write_table(output, rows, schemas.CLAP)


def load_embedder(spec: Spec) -> embedders.Embedder:
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
    elif spec.backend == "logmel":
        embedder = embedders.LogMel()
    else:
        embedder = embedders.TransformersClap(model=spec.model, revision=spec.revision)
    if spec.window_s > embedder.window_s:
        raise InputError(
            f"scores.clap.window_s: {spec.window_s} s, but {embedder.name} takes at most "
            f"{embedder.window_s} s. Lower it."
        )
    return embedder


def _row(clip_id: str, key: str, windows: np.ndarray, text: np.ndarray, cut: bool) -> dict:
    clip = embeddings.pool(windows)
    per_window = windows @ text
    return {
        "id": clip_id,
        "clap_score": float(clip @ text),
        "clap_min": float(per_window.min()),
        "clap_max": float(per_window.max()),
        "text_truncated": bool(cut),
        "audio_embedding": clip,
        "text_embedding": text,
        "embedding_key": key,
    }


def _captions_of(ids: list[str], path) -> list[str]:
    texts = {row["id"]: row["caption"] for row in io.read_rows(path, ["id", "caption"])}
    for clip_id in ids:
        if not texts.get(clip_id):
            raise InputError(f"{path}: no caption for clip {clip_id}. Remake captions and audio.")
    return [texts[clip_id] for clip_id in ids]


def matched_auc(audio: np.ndarray, text: np.ndarray) -> float:
    """Return the AUC of rows' own pairs against pairs with the next row's text, [N, D] each."""
    matched, shuffled = ((audio * pair).sum(axis=1) for pair in (text, np.roll(text, 1, axis=0)))
    return auc(matched, shuffled)


def auc(positive: np.ndarray, negative: np.ndarray) -> float:
    """Return the chance that a positive score is above a negative one; ties count half."""
    ranks = rankdata(np.concatenate([positive, negative]))[: len(positive)]
    n = len(positive)
    return float((ranks.sum() - n * (n + 1) / 2) / (n * len(negative)))
