"""Significance of TCAV scores: t-test, permutation test, interval of the effect, Holm."""

import numpy as np
from scipy import stats

from conceptcaps.cav import unit

_MOST_CLIPS = 2000  # of each kind in a permutation; more would only cost time


def both_orders(statistic, gradients: np.ndarray, null: np.ndarray) -> np.ndarray:
    """Return a statistic [2K] of null CAVs [K, D], each pair of random sets in both orders.

    Neither of two random sets is "the concept". With both orders the null's mean is what symmetry
    says (0.5 for a share, 0 for a cosine), not that plus noise.
    """
    return np.concatenate([statistic(gradients, null), statistic(gradients, -null)])


def welch(scores: np.ndarray, null: np.ndarray, *, shared: float) -> float:
    """Return the two-sided p-value of Welch's t-test of scores [K] against null scores [L].

    t = (mean s - mean n) / sqrt(var(s) (1/K + shared/(1 - shared)) + var(n) / L), with
    Welch-Satterthwaite degrees of freedom. The term with `shared`, the share of clips that two
    scores have in common, is there because such scores agree more than independent ones.

    **Source:** Welch 1947; Nadeau and Bengio 2003 for the term.
    """
    ours, theirs = scores.var(ddof=1) * _per_score(scores, shared), null.var(ddof=1) / len(null)
    difference = scores.mean() - null.mean()
    if ours + theirs == 0:  # every score equal: nothing to test, or no doubt at all
        return 1.0 if difference == 0 else 0.0
    df = (ours + theirs) ** 2 / (ours**2 / (len(scores) - 1) + theirs**2 / (len(null) - 1))
    return float(2 * stats.t.sf(abs(difference) / np.sqrt(ours + theirs), df))


def _per_score(scores: np.ndarray, shared: float) -> float:
    return 1 / len(scores) + shared / (1 - shared)


def effect_interval(
    scores: np.ndarray, null: np.ndarray, *, n_class: int, shared: float
) -> tuple[float, float]:
    """Return the 95 % interval of the effect, mean of scores [K] less mean of null scores [L].

    Three sources of doubt: which random sets (as in `welch`), which null sets, and which clips of
    the class. The last is the binomial variance of the mean score over `n_class` clips, with two
    successes and two failures added, so that a score of 1 has an interval too: shares of sets are
    no likelier to scatter than single clips, so it errs to the wide side.

    **Source:** Agresti and Coull 1998 for the added counts.
    """
    p = (scores.mean() * n_class + 2) / (n_class + 4)
    variance = scores.var(ddof=1) * _per_score(scores, shared) + null.var(ddof=1) / len(null)
    half = 1.96 * np.sqrt(variance + p * (1 - p) / (n_class + 4))
    low, high = np.clip([scores.mean() - half, scores.mean() + half], 0, 1) - null.mean()
    return float(low), float(high)


def permutation_p(
    activations: np.ndarray,
    positive: np.ndarray,
    gradients: dict[str, np.ndarray],
    *,
    permutations: int,
    rng: np.random.Generator,
) -> dict[str, float]:
    """Return {class: two-sided p-value} of a concept when labels are exchanged.

    The statistic is the derivative along the pattern CAV, without its length: how much farther the
    clips with the concept lie along the class's mean unit gradient than as many drawn without. Its
    null exchanges the labels of these clips. It is exact for any number of clips, and knows nothing
    of random sets that share clips: the check on the t-test's correction for that.

    Args:
        activations: [N, D].
        positive: [N] bool, which clips carry the concept.
        gradients: {class: [C, D]}.
        permutations: how often labels are exchanged; the least p-value is 1 / (permutations + 1).
        rng: source of all draws.

    **Source:** Phipson and Smyth 2010: (1 + hits) / (1 + permutations), never 0.
    """
    ours, rest = np.flatnonzero(positive), np.flatnonzero(~positive)
    size = min(len(ours), len(rest), _MOST_CLIPS)
    drawn = [rng.choice(kind, size, replace=False) for kind in (ours, rest)]
    clips = activations[np.concatenate(drawn)]
    signs = np.repeat(np.array([1, -1], np.int8), size)
    labels = np.concatenate([signs[None], rng.permuted(np.tile(signs, (permutations, 1)), axis=1)])
    slopes = np.stack([unit(of_class).mean(axis=0) for of_class in gradients.values()], axis=1)
    apart = np.abs(labels @ (clips @ slopes))  # (1 + permutations, classes)
    hits = (apart[1:] >= apart[0] * (1 - 1e-12)).sum(axis=0)
    return {
        name: float((1 + hit) / (1 + permutations))
        for name, hit in zip(gradients, hits, strict=True)
    }


def holm(p_values: np.ndarray) -> np.ndarray:
    """Return Holm's adjusted p-values [N]: running maximum of (N - rank) p over ascending p, <= 1.

    **Source:** Holm 1979.
    """
    p_values = np.asarray(p_values, float)
    order = np.argsort(p_values, kind="stable")
    stepped = p_values[order] * np.arange(len(p_values), 0, -1)
    adjusted = np.empty_like(stepped)
    adjusted[order] = np.minimum(np.maximum.accumulate(stepped), 1.0)
    return adjusted
