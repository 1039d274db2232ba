"""The CLAP scores of arms summed up: baselines, retrieval, gates of the checkpoint, paired tests.

Arms are compared over the tag sets that both have, and only if the checkpoint passes its gates.
"""

from dataclasses import asdict
from itertools import combinations

import numpy as np

from conceptcaps import io, results, schemas, seeding
from conceptcaps.clap import Spec, auc
from conceptcaps.embeddings import mean_pairwise_cosine
from conceptcaps.errors import InputError
from conceptcaps.significance import holm

ALPHA = 0.05  # of the paired tests, after Holm's correction
_COLLAPSED_COSINE = 0.6  # mean pairwise cosine of captions from which a text tower is collapsed
_BOOTSTRAPS = 1000
_FLIPS = 10_000  # of signs, in the paired tests
_BINS = 40  # of the distributions
_POOL_CHUNK = 1024  # rows of the retrieval matrix in memory at a time
_COLUMNS = ["id", "audio_embedding", "text_embedding", "text_truncated"]


def summarise(*, shards: dict, controls, spec: Spec, seed: int, output) -> None:
    """Write {"arms": {arm: [metric, ...]}, "gates", "comparisons", "distributions", "order"}.

    For each arm: clap_score, mean over clips; clap_shuffled, the same with every clip given the
    caption of another (a derangement); clap_auc, the chance that a matched pair scores above a
    shuffled one; clap_noise, captions with white noise; retrieval_r1, r5 and r10, the share of
    captions whose own clip is among the 1, 5 or 10 nearest of N clips, ties counted against it, and
    retrieval_median_rank; text_truncated, the share of captions cut at the text limit. Retrieval
    depends on N: it is done among N clips of each arm, drawn at random, N being the smallest arm's.
    Intervals: bootstrap over clips.

    Args:
        shards: {arm: its CLAP tables}; the first arm is the one that the gates look at.
        controls: EMBEDDINGS table; its ids noise-... are white noise.
        spec: config.
        seed: the global seed.
        output: JSON file.

    Raises:
        InputError: an arm has fewer than 2 clips.
    """
    tables = {arm: read_scored(arm, paths) for arm, paths in shards.items()}
    n_pool = min(len(table["id"]) for table in tables.values())
    noise = _noise(controls)
    recipe = {
        **asdict(spec),
        "seed": seed,
        "bootstraps": _BOOTSTRAPS,
        "retrieval_pool": n_pool,
        **results.versions("torch", "transformers"),
    }
    arms = {
        arm: _arm_metrics(arm, table, noise, n_pool=n_pool, seed=seed, recipe=recipe)
        for arm, table in tables.items()
    }
    first = next(iter(arms))
    gates = _gates(tables[first], {metric["name"]: metric for metric in arms[first]}, seed)
    held = all(gate["holds"] for gate in gates)
    comparisons = compare({arm: _matched(table) for arm, table in tables.items()}, seed, held=held)
    for gate in gates:
        mark = "holds" if gate["holds"] else "FAILS: no arm is compared with another"
        print(f"gate {gate['name']}: {gate['value']:.4f} {gate['bound']}: {mark}")
    io.write_json(
        output,
        {
            "arms": arms,
            "order": list(arms),
            "gates": gates,
            "comparisons": comparisons,
            "distributions": _distributions(tables, seed),
        },
    )


def _distributions(tables: dict, seed: int) -> dict:
    """Return {"edges": [bins + 1], "clips": {arm: [bins]}}: how many clips have which score."""
    first = next(iter(tables))
    scores = {arm: list(_matched(table).values()) for arm, table in tables.items()}
    scores["captions shuffled"] = shuffled_scores(tables[first], seed=seed, arm=first).tolist()
    everything = [score for values in scores.values() for score in values]
    edges = np.linspace(min(everything), max(everything), _BINS + 1)
    counts = {arm: np.histogram(values, edges)[0].tolist() for arm, values in scores.items()}
    return {"edges": edges.tolist(), "clips": counts}


def read_scored(arm: str, paths) -> dict[str, np.ndarray]:
    """Return the columns of an arm's CLAP tables, by id: embeddings as arrays [N, D].

    Raises:
        InputError: there are fewer than 2 clips.
    """
    tables = [io.read_table(path, _COLUMNS) for path in paths]
    rows = sorted(
        (
            row
            for table in tables
            for row in zip(*(table[c].to_numpy() for c in _COLUMNS), strict=True)
        ),
        key=lambda row: row[0],
    )
    if len(rows) < 2:
        raise InputError(f"{paths[0]}: arm {arm} has {len(rows)} clips; at least 2 are needed.")
    ids, audio, text, cut = zip(*rows, strict=True)
    return {
        "id": np.array(ids),
        "audio": np.stack(audio),
        "text": np.stack(text),
        "cut": np.array(cut, dtype=bool),
    }


def _noise(controls) -> np.ndarray:
    rows = io.read_rows(controls, schemas.EMBEDDINGS.names[:2])
    found = [row["audio_embedding"] for row in rows if row["id"].startswith("noise-")]
    if not found:
        raise InputError(f"{controls}: holds no white noise (noise-0000, ...). Remake it.")
    return np.array(found, dtype=np.float64)


def _matched(table: dict) -> dict[str, float]:
    scores = np.einsum("nd,nd->n", table["audio"], table["text"], dtype=np.float64)
    return dict(zip(table["id"].tolist(), scores.tolist(), strict=True))


def shuffled_scores(table: dict, *, seed: int, arm: str) -> np.ndarray:
    """Return the scores [N] of clips with the next one's caption in a random circle: not theirs."""
    audio, text = table["audio"], table["text"]
    order = seeding.item_rng(seed, "clap/shuffle", arm).permutation(len(audio))
    shuffled = np.empty(len(audio))
    shuffled[order] = np.einsum(
        "nd,nd->n", audio[order], text[np.roll(order, -1)], dtype=np.float64
    )
    return shuffled


def _arm_metrics(arm, table, noise, *, n_pool, seed, recipe) -> list[dict]:
    ids, audio, text = table["id"].tolist(), table["audio"], table["text"]
    matched = np.array(list(_matched(table).values()))
    shuffled = shuffled_scores(table, seed=seed, arm=arm)
    by_hash = sorted(range(len(ids)), key=lambda i: seeding.item_seed(seed, "clap/pool", ids[i]))
    drawn = by_hash[:n_pool]
    ranks = retrieval_ranks(audio[drawn], text[drawn])
    means = {
        "clap_score": (matched, "higher"),
        "clap_shuffled": (shuffled, "none"),
        "clap_noise": (text @ noise.mean(axis=0), "none"),
        "retrieval_r1": (ranks <= 1, "higher"),
        "retrieval_r5": (ranks <= 5, "higher"),
        "retrieval_r10": (ranks <= 10, "higher"),
        "text_truncated": (table["cut"], "lower"),
    }
    metrics = [
        results.MetricResult(
            name,
            *results.mean(values, n_boot=_BOOTSTRAPS, seed=seed),
            len(values),
            direction,
            recipe,
        )
        for name, (values, direction) in means.items()
    ]
    metrics.insert(2, _auc_metric(matched, shuffled, seed=seed, recipe=recipe))
    metrics.insert(-1, _median_rank(ranks, seed=seed, recipe=recipe))
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


def _median_rank(ranks, *, seed, recipe) -> results.MetricResult:
    rng = np.random.default_rng(seed)
    draws = [np.median(ranks[rng.integers(0, len(ranks), len(ranks))]) for _ in range(_BOOTSTRAPS)]
    low, high = np.quantile(draws, [0.025, 0.975])
    value = float(np.median(ranks))
    return results.MetricResult(
        "retrieval_median_rank", value, float(low), float(high), len(ranks), "lower", recipe
    )


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


def _gates(table: dict, metrics: dict[str, dict], seed: int) -> list[dict]:
    """Return what a checkpoint must pass before arms are compared: {name, value, bound, holds}.

    Different captions differ (a collapsed text tower maps all to one place); clips agree more with
    their own captions than with others'; and more than white noise does.
    """
    distinct = np.unique(table["text"], axis=0)
    cosine = mean_pairwise_cosine(distinct) if len(distinct) > 1 else 1.0
    above_shuffled = metrics["clap_auc"]["ci_low"]
    above_noise = metrics["clap_score"]["ci_low"] - metrics["clap_noise"]["ci_high"]
    return [
        _gate("text_cosine", cosine, "<", _COLLAPSED_COSINE),
        _gate("matched_above_shuffled", above_shuffled, ">", 0.5),
        _gate("matched_above_noise", above_noise, ">", 0.0),
    ]


def _gate(name: str, value: float, side: str, limit: float) -> dict:
    holds = value < limit if side == "<" else value > limit
    return {
        "name": name, "value": float(value), "bound": f"{side} {limit:g}", "holds": bool(holds)
    }  # fmt: skip


def compare(scores: dict[str, dict[str, float]], seed: int, *, held: bool) -> list[dict]:
    """Compare each pair of arms over the ids that both have, given {arm: {id: score}}.

    Returns:
        {metric, arm, against, n, difference, ci_low, ci_high, effect, p_value, p_holm, verdict}:
        mean of the paired differences with its bootstrap interval, the same in standard
        deviations, the two-sided p of a sign-flip permutation test, alone and after Holm's
        correction over all pairs. The verdict is "higher", "lower" or "not separable"; "not
        judged" when the gates do not hold (`held`) or fewer than 2 ids are shared.

    **Source:** sign-flip test: Fisher 1935; correction: Holm 1979.
    """
    rows = []
    for arm, against in combinations(scores, 2):
        shared = sorted(scores[arm].keys() & scores[against].keys())
        row = {"metric": "clap_score", "arm": arm, "against": against, "n": len(shared)}
        gaps = np.array([scores[arm][i] - scores[against][i] for i in shared])
        names = ("difference", "ci_low", "ci_high", "effect", "p_value", "p_holm")
        row |= dict.fromkeys(names)
        if len(shared) >= 2:
            mean, low, high = results.bootstrap_mean(gaps, n_boot=_BOOTSTRAPS, seed=seed)
            spread = float(gaps.std(ddof=1))
            row |= {"difference": mean, "ci_low": low, "ci_high": high}
            row["effect"] = mean / spread if spread > 0 else None
            row["p_value"] = sign_flip_p(gaps, rng=seeding.item_rng(seed, "clap", arm + against))
        rows.append(row)
    tested = [row for row in rows if row["p_value"] is not None]
    corrected = holm(np.array([row["p_value"] for row in tested]))
    for row, p_holm in zip(tested, corrected, strict=True):
        row["p_holm"] = float(p_holm)
    for row in rows:
        row["verdict"] = _verdict(row, held=held)
    return rows


def _verdict(row: dict, *, held: bool) -> str:
    if not held or row["p_holm"] is None:
        return "not judged"
    if row["p_holm"] >= ALPHA:
        return "not separable"
    return "higher" if row["difference"] > 0 else "lower"


def sign_flip_p(gaps: np.ndarray, *, rng: np.random.Generator) -> float:
    """Return the two-sided p of paired differences [N] under random signs, at least 1 / 10,001."""
    observed, beyond = abs(gaps.sum()), 0
    for start in range(0, _FLIPS, 500):
        signs = rng.integers(0, 2, (min(500, _FLIPS - start), len(gaps))) * 2 - 1
        beyond += int((np.abs(signs @ gaps) >= observed * (1 - 1e-12)).sum())
    return (beyond + 1) / (_FLIPS + 1)
