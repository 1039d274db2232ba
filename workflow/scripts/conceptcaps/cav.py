"""Concept activation vectors: sets of clips, linear classifiers, and the test of their scores."""

from dataclasses import dataclass

import numpy as np
from scipy import stats
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score

from conceptcaps.errors import InputError


@dataclass(frozen=True)
class CavSet:
    """The CAVs of one concept at one layer, one per random set."""

    concept: np.ndarray  # [K, D] directions from random clips to clips with the concept
    null: np.ndarray  # [K, D] directions between two random sets
    shared: float  # mean share of clips that two concept CAVs have in common, in [0, 1)
    accuracy: float  # mean balanced accuracy on held-out clips
    auc: float  # mean area under the ROC curve on held-out clips
    n_concept: int  # clips in each concept set


def draw_sets(clips: np.ndarray, *, size: int, count: int, rng: np.random.Generator) -> np.ndarray:
    """Draw `count` sets of `size` clips; returns indices [count, size].

    The clips are shuffled and cut into disjoint sets. Where they do not suffice they are shuffled
    again and cut into more: no clip is twice in a set, and all are used about equally often.
    """
    sets = []
    while len(sets) < count:
        shuffled = rng.permutation(clips)
        sets.extend(shuffled[i : i + size] for i in range(0, len(clips) - size + 1, size))
    return np.stack(sets[:count])


def shared_share(sets: np.ndarray) -> float:
    """Return the mean share of clips that two of the sets [K, size] have in common."""
    members = np.zeros((len(sets), sets.max() + 1))
    np.put_along_axis(members, sets, 1.0, axis=1)
    common = members @ members.T / sets.shape[1]
    return float(common[np.triu_indices(len(sets), 1)].mean())


def fit_cav(
    positive: np.ndarray, negative: np.ndarray, *, inverse_l2: float
) -> tuple[np.ndarray, float]:
    """Return the normal [D] and the intercept of the linear classifier between two sets [n, D].

    Logistic regression with an L2 penalty; balanced sets are expected. Its solution lies in the
    span of the examples, so it is fitted there, exactly and in at most n dimensions. The smaller
    `inverse_l2` (> 0, scikit-learn's C), the nearer the normal is to the difference of the means:
    with about as many axes as examples, a weak penalty fits the sample and not the concept.
    """
    x = np.concatenate([positive, negative])
    y = np.repeat([1, 0], [len(positive), len(negative)])
    u, s, axes = np.linalg.svd(x, full_matrices=False)
    model = LogisticRegression(C=inverse_l2, solver="newton-cholesky").fit(u * s, y)
    return model.coef_[0] @ axes, float(model.intercept_[0])


def fit_cavs(
    activations: np.ndarray,
    positive: np.ndarray,
    *,
    set_size: int,
    random_sets: int,
    heldout_share: float,
    inverse_l2: float,
    rng: np.random.Generator,
) -> CavSet:
    """Fit one CAV and one null CAV per random set.

    A share of the clips with and of the clips without the concept is held out to measure the CAVs.
    From the others, a CAV takes `set_size` clips of each kind (all, where there are fewer), and its
    null CAV the same random clips against as many others.

    Args:
        activations: [N, D].
        positive: [N] bool, which clips carry the concept; both kinds must occur.
        set_size: clips per set.
        random_sets: number of CAVs, K > 1.
        heldout_share: in (0, 1).
        inverse_l2: of the logistic regression; activations are expected at unit mean deviation.
        rng: source of all draws.

    Raises:
        InputError: sets of two clips cannot be drawn.
    """
    with_it, heldout_with = _hold_out(np.flatnonzero(positive), heldout_share, rng)
    without, heldout_without = _hold_out(np.flatnonzero(~positive), heldout_share, rng)
    size = min(set_size, len(with_it), len(without) // 2)
    if size < 2:
        raise InputError(
            f"tcav: {positive.sum()} clips with a tag and {(~positive).sum()} without make no sets "
            "of two clips besides the held-out ones. Raise tcav.set_size: it is also the least "
            "number of clips that a concept needs."
        )
    concept_sets = draw_sets(with_it, size=size, count=random_sets, rng=rng)
    pairs = draw_sets(without, size=2 * size, count=random_sets, rng=rng)
    random, others = pairs[:, :size], pairs[:, size:]
    concept, null, accuracies, aucs = [], [], [], []
    truth = np.repeat([1, 0], [len(heldout_with), len(heldout_without)])
    heldout = activations[np.concatenate([heldout_with, heldout_without])]
    for c, r, o in zip(concept_sets, random, others, strict=True):
        weights, intercept = fit_cav(activations[c], activations[r], inverse_l2=inverse_l2)
        margins = heldout @ weights + intercept
        hits = (margins > 0) == truth
        accuracies.append((hits[truth == 1].mean() + hits[truth == 0].mean()) / 2)
        aucs.append(roc_auc_score(truth, margins))
        concept.append(weights)
        null.append(fit_cav(activations[r], activations[o], inverse_l2=inverse_l2)[0])
    return CavSet(
        concept=np.stack(concept),
        null=np.stack(null),
        shared=(shared_share(concept_sets) + shared_share(random)) / 2,
        accuracy=float(np.mean(accuracies)),
        auc=float(np.mean(aucs)),
        n_concept=size,
    )


def _hold_out(clips: np.ndarray, share: float, rng) -> tuple[np.ndarray, np.ndarray]:
    """Split clips at random into (the rest, a share of at least one)."""
    shuffled = rng.permutation(clips)
    count = max(1, round(share * len(clips)))
    return shuffled[count:], shuffled[:count]


def positive_share(gradients: np.ndarray, directions: np.ndarray) -> np.ndarray:
    """Return, per direction [K, D], the share of gradients [C, D] with a positive derivative, [K].

    **Source:** Kim et al. 2018, equation 2: the TCAV score.
    """
    return (gradients @ directions.T > 0).mean(axis=0)


def alignment(gradients: np.ndarray, directions: np.ndarray) -> np.ndarray:
    """Return, per direction [K, D], its mean cosine with the gradients [C, D], [K] in [-1, 1].

    The size behind the sign that `positive_share` counts; a gradient of zero counts as 0.
    """
    return (_unit(gradients) @ _unit(directions).T).mean(axis=0)


def _unit(vectors: np.ndarray) -> np.ndarray:
    norms = np.linalg.norm(vectors, axis=1, keepdims=True)
    return np.divide(vectors, norms, out=np.zeros_like(vectors), where=norms > 0)


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
    ours = scores.var(ddof=1) * (1 / len(scores) + shared / (1 - shared))
    theirs = null.var(ddof=1) / len(null)
    difference = scores.mean() - null.mean()
    if ours + theirs == 0:  # every score equal: nothing to test, or no doubt at all
        return 1.0 if difference == 0 else 0.0
    df = (ours + theirs) ** 2 / (ours**2 / (len(scores) - 1) + theirs**2 / (len(null) - 1))
    return float(2 * stats.t.sf(abs(difference) / np.sqrt(ours + theirs), df))


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
