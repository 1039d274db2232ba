"""The concept audit: is each tag heard in its clip? A verdict from the audio, not from the prompt.

Tempo tags are judged by a beat tracker, missing percussion by percussive energy (`rhythm`), all
others by CLAP: how much nearer the clip lies to the tag than to the tags that exclude it, or to the
rest of its category, and than to tags at random. Where labelled clips exist, a logistic regression
turns these figures into a probability, and cross-validation says how far to trust it.
"""

from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
from scipy.special import expit

from conceptcaps import calibration, clap, embeddings, io, rhythm, runlog
from conceptcaps.categories import PRESENT_PROB_OF, TAGS_OF
from conceptcaps.clips import iter_clips
from conceptcaps.errors import InputError
from conceptcaps.results import MetricResult, mean, versions, write_metrics
from conceptcaps.schemas import AUDIT
from conceptcaps.seeding import item_rng, item_seed

CODEC = "codec"  # of the miniature's clips, those that were heard as generated clips are
_HEARD_BPM = 40.0, 220.0  # tempi that a tracked one's half or double may be
_SOFT_OCTAVES, _SOFT_SHARE = 0.1, 0.05  # width of the edges where nothing was calibrated


@dataclass(frozen=True)
class Spec:
    """Config section `audit`."""

    prompt: str  # what CLAP reads, {tag} filled in
    random_tags: int  # that a tag is held against
    tempo_bpm: dict[str, list[float]]  # tags that the beat tracker judges, and their range
    percussive_share: dict[str, float]  # tags that deny percussion: share of energy at most
    labelled_clips: int  # to calibrate on, at most
    min_auc: float  # of cross-validation: below, a tag is not judged
    min_present_prob: float  # of every judged tag of a verified clip


@dataclass(frozen=True)
class Heard:
    """What was measured of N clips."""

    ids: list[str]
    embeddings: np.ndarray  # [N, D] CLAP's, of unit norm
    rhythms: np.ndarray  # [N, 5], `rhythm.table`


def audit(
    *,
    tags: str | Path,
    taxonomy: str | Path,
    exclusive: list[list[str]],
    audio: Iterable[str | Path],
    scored: Iterable[str | Path],
    labelled: str | Path,
    reference: str | Path,
    clap_spec: clap.Spec,
    spec: Spec,
    seed: int,
    output: str | Path,
    metrics: str | Path,
) -> None:
    """Judge every tag in every clip; write table `schemas.AUDIT` and a card of every tag.

    A probability is at even odds: it says what the audio adds, whatever was asked for. `verified`
    clips have at least one tag that was checked on labelled clips, and all such tags are heard.

    Args:
        tags: table `schemas.TAGS`.
        taxonomy: {category: tags}, JSON.
        exclusive: groups of tags of which a clip has one at most.
        audio: audio tables.
        scored: CLAP tables of the same clips; their embeddings are reused.
        labelled: clips with a known `aspect_list` or `genre` (tables `schemas.MINIATURE`,
            `schemas.GENRE_CLIPS`).
        reference: table `schemas.EMBEDDINGS`, which may hold the labelled clips' embeddings.
        clap_spec: the checkpoint that made the embeddings.
        spec: config.
        seed: decides random tags and folds.
        output: table to write.
        metrics: JSON file to write: figures, and {tag: card} under `tags`.

    Raises:
        InputError: clips without tags or embeddings, or none at all.
    """
    categories = io.read_json(taxonomy)
    names = [tag for group in categories.values() for tag in group]
    embedder = clap.load_embedder(clap_spec)
    prompts = [spec.prompt.format(tag=tag) for tag in names]
    text, _ = embeddings.embed_texts(embedder, prompts, batch_size=clap_spec.batch_size)
    ours = _heard(audio, _embeddings(scored))
    known, truth, examples = _labelled(labelled, reference, names, embedder, clap_spec, spec, seed)
    of_id = {row["id"]: row for row in io.read_rows(tags)}
    if missing := [clip for clip in ours.ids if clip not in of_id]:
        raise InputError(f"audit: clip {missing[0]} has no tags: it is of another run.")
    carried = _multi_hot([_tags(of_id[clip]) for clip in ours.ids], names)
    groups = _groups(categories, exclusive)
    cards, probs = {}, np.full((len(ours.ids), len(names)), np.nan)
    pooled, pool_auc = _pool(known, truth, examples, text, names, groups, spec, seed)
    for k, tag in enumerate(runlog.progress(names, what="tags")):
        method = _method(tag, spec)
        x = [_figures(tag, method, h, text, names, groups, spec, seed) for h in (examples, ours)]
        fitted = calibration.fit(x[0], truth[:, k]) if tag in known else None
        card = {"method": method, "calibrated": fitted is not None}
        if fitted is not None:
            card |= fitted.quality
            if fitted.quality["auc"] >= spec.min_auc:
                probs[:, k] = fitted.probability(x[1])
        elif method == "clap" and pooled is not None and (pool_auc or 0) >= spec.min_auc:
            probs[:, k] = pooled.probability(x[1])
        elif method != "clap":
            probs[:, k] = _uncalibrated(tag, method, ours.rhythms, spec)
        card["judged"] = bool(np.isfinite(probs[:, k]).any())
        cards[tag] = card | calibration.dataset_quality(probs[:, k], carried[:, k], card)
    trusted = np.array([cards[tag]["calibrated"] and cards[tag]["judged"] for tag in names])
    verified = _verified(probs, carried, trusted, spec.min_present_prob)
    io.write_table(output, _rows(ours.ids, of_id, names, probs, verified), AUDIT)
    _write_metrics(metrics, cards, verified, pool_auc=pool_auc, spec=spec, seed=seed)


def _embeddings(tables: Iterable[str | Path]) -> dict[str, np.ndarray]:
    columns = ["id", "audio_embedding"]
    return {
        row["id"]: np.asarray(row["audio_embedding"], np.float32)
        for path in tables
        for row in io.read_rows(path, columns)
    }


def _heard(audio: Iterable[str | Path], embedded: dict[str, np.ndarray]) -> Heard:
    """Measure the clips of audio tables that were embedded."""
    ids, rhythms = [], []
    clips = (clip for path in audio for clip in iter_clips(path))
    for row, wave in runlog.progress(clips, what="rhythm of clips"):
        if row["id"] in embedded:
            ids.append(row["id"])
            rhythms.append(rhythm.measure(wave, sampling_rate_hz=row["sampling_rate"]))
    if not ids:
        raise InputError("audit: no clip has audio and a CLAP embedding. See the audio ledgers.")
    return Heard(ids, np.stack([embedded[clip] for clip in ids]), rhythm.table(rhythms))


def _labelled(path, reference, names, embedder, clap_spec, spec, seed) -> tuple:
    """Return the tags that labelled clips tell of, their truth [M, tags] bool, and the clips."""
    embedded, told = _embeddings([reference]), {}
    first = next(io.iter_batches(path, 1), None)
    if first is None:
        raise InputError(f"{path}: holds no labelled clips to calibrate the audit on.")
    columns = set(first.schema.names)
    for row in io.read_rows(path, sorted(columns & {"id", "kind", "aspect_list", "genre"})):
        if row.get("kind", CODEC) == CODEC:
            told[row["id"]] = row["aspect_list"] if "aspect_list" in row else _genre(row, names)
    chosen = sorted(told, key=lambda clip: item_seed(seed, "audit/labelled", clip))
    chosen = set(chosen[: spec.labelled_clips])
    ids, rhythms = [], []
    for row, wave in iter_clips(path, ids=chosen):
        ids.append(row["id"])
        rhythms.append(rhythm.measure(wave, sampling_rate_hz=row["sampling_rate"]))
    fresh = [clip for clip in ids if clip not in embedded]
    if fresh:
        per_clip = embeddings.embed_whole(
            embedder,
            _bytes(path, set(fresh)),
            where=str(path),
            window_s=clap_spec.window_s,
            batch_size=clap_spec.batch_size,
            total=len(fresh),
        )
        embedded |= {
            clip: embeddings.pool(windows) for clip, windows in zip(fresh, per_clip, strict=True)
        }
    examples = Heard(ids, np.stack([embedded[clip] for clip in ids]), rhythm.table(rhythms))
    known = set(names) if "aspect_list" in columns else {t for tags in told.values() for t in tags}
    return known, _multi_hot([told[clip] for clip in ids], names), examples


def _bytes(path: str | Path, wanted: set[str]) -> Iterator[tuple[str, bytes]]:
    for batch in io.iter_batches(path, 64, ["id", "audio"]):
        for row in batch.to_pylist():
            if row["id"] in wanted:
                yield row["id"], row["audio"]["bytes"]


def _genre(row: dict, names: list[str]) -> list[str]:
    """Return [the tag] that a corpus' genre is, whatever its spaces: hiphop is hip hop."""
    return [tag for tag in names if tag.replace(" ", "") == row["genre"].replace(" ", "")]


def _tags(row: dict) -> list[str]:
    return [tag for column in TAGS_OF.values() for tag in row[column]]


def _multi_hot(tags: list[list[str]], names: list[str]) -> np.ndarray:
    return np.array([[name in held for name in names] for held in map(set, tags)], bool)


def _groups(categories: dict[str, list[str]], exclusive: list[list[str]]) -> dict[str, list[str]]:
    """Return {tag: the tags that it is held against}.

    Those it excludes; if there are none, its category's; if it is alone there, all others.
    """
    everything = [tag for members in categories.values() for tag in members]
    groups = {}
    for members in categories.values():
        for tag in members:
            rivals = {other for group in exclusive if tag in group for other in group} - {tag}
            own = [other for other in members if other != tag]
            groups[tag] = sorted(rivals) or own or [name for name in everything if name != tag]
    return groups


def _method(tag: str, spec: Spec) -> str:
    if tag in spec.tempo_bpm:
        return "tempo"
    return "percussion" if tag in spec.percussive_share else "clap"


def _figures(tag, method, heard: Heard, text, names, groups, spec, seed) -> np.ndarray:
    """Return what a tag is judged by, [N, features]."""
    if method == "tempo":
        return heard.rhythms[:, :3]
    if method == "percussion":
        return heard.rhythms
    cosines = heard.embeddings @ text.T
    own = cosines[:, names.index(tag)]
    others = [name for name in names if name != tag and name not in groups[tag]] or groups[tag]
    drawn = item_rng(seed, "audit/random", tag).permutation(others)[: spec.random_tags]
    rivals = [names.index(name) for name in groups[tag]]
    random = [names.index(name) for name in drawn]
    return np.stack([own - cosines[:, c].mean(axis=1) for c in (rivals, random)], axis=1)


def _pool(known, truth, examples, text, names, groups, spec, seed):
    """Fit one calibration for all labelled tags that CLAP judges, for those without labels.

    Returns (calibration or None, its AUC on the clips of a tag that it was not fitted to: mean over
    tags; None where there are not two tags).
    """
    told = [k for k, tag in enumerate(names) if tag in known and _method(tag, spec) == "clap"]
    x = [_figures(names[k], "clap", examples, text, names, groups, spec, seed) for k in told]
    if not x:
        return None, None
    y = [truth[:, k] for k in told]
    aucs = []
    for left_out, own in enumerate(y):
        others = [k for k in range(len(x)) if k != left_out]
        if not others or own.all() or not own.any():
            continue
        fitted = calibration.fit(*(np.concatenate([part[k] for k in others]) for part in (x, y)))
        if fitted is not None:
            p = fitted.probability(x[left_out])
            aucs.append(clap.auc(p[own], p[~own]))
    pooled = calibration.fit(np.concatenate(x), np.concatenate(y))
    return pooled, float(np.mean(aucs)) if aucs else None


def _uncalibrated(tag: str, method: str, rhythms: np.ndarray, spec: Spec) -> np.ndarray:
    """Return a rule's soft verdict [N] where no labelled clips exist; nan: none.

    Trackers lock to half or double the beat: a tempo counts half where it was tracked, and half at
    the best of its octaves within `_HEARD_BPM`. Without a beat there is no verdict.
    """
    if method == "tempo":
        low, high = np.log2(np.maximum(spec.tempo_bpm[tag], 1.0))
        octaves = rhythms[:, 0]
        fits = []
        for moved in (octaves, octaves - 1, octaves + 1):
            soft = expit((moved - low) / _SOFT_OCTAVES) * expit((high - moved) / _SOFT_OCTAVES)
            heard = (moved >= np.log2(_HEARD_BPM[0])) & (moved <= np.log2(_HEARD_BPM[1]))
            fits.append(soft * (heard | (moved is octaves)))
        return np.where(octaves > 0, (fits[0] + np.max(fits, axis=0)) / 2, np.nan)
    return expit((spec.percussive_share[tag] - rhythms[:, 3]) / _SOFT_SHARE)


def _verified(probs, carried, trusted, least: float) -> np.ndarray:
    asked = carried & trusted
    return asked.any(axis=1) & ~(asked & ~(probs >= least)).any(axis=1)


def _rows(ids, of_id, names, probs, verified) -> list[dict]:
    place = {name: k for k, name in enumerate(names)}
    values = [[None if np.isnan(p) else float(p) for p in row] for row in probs]
    return [
        {
            "id": clip,
            **{
                PRESENT_PROB_OF[category]: [values[n][place[tag]] for tag in of_id[clip][column]]
                for category, column in TAGS_OF.items()
            },
            "verified": bool(verified[n]),
            "present_prob": values[n],
        }
        for n, clip in enumerate(ids)
    ]


def _write_metrics(path, cards: dict, verified, *, pool_auc, spec: Spec, seed: int) -> None:
    recipe = {"spec": asdict(spec), "seed": seed} | versions("librosa", "scikit-learn")
    checked = [card for card in cards.values() if card["calibrated"] and card["judged"]]
    figures = {
        "verified_share": verified,
        "verifier_auc": [card["auc"] for card in checked],
        "tag_precision": [c["tag_precision"] for c in checked if c["tag_precision"] is not None],
        "tag_recall": [c["tag_recall"] for c in checked if c["tag_recall"] is not None],
    }
    results = [
        MetricResult(name, *mean(x, seed=seed), len(x), "higher", recipe)
        for name, x in figures.items()
        if len(x)
    ]
    for metric in results:
        low, high = metric.ci_low, metric.ci_high
        print(f"{metric.name}: {metric.value:.3f} [{low:.3f}, {high:.3f}], N = {metric.n}")
    dropped = [tag for tag, card in cards.items() if not card["judged"]]
    print(f"not judged: {', '.join(dropped) or 'none'}")
    write_metrics(path, results, tags=cards, pool_auc=pool_auc)
