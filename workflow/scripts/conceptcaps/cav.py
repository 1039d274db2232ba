"""Concept activation vectors: sets of clips, the linear classifiers between them, their quality."""

from dataclasses import dataclass

import numpy as np
from scipy.special import expit
from scipy.stats import rankdata

from conceptcaps.errors import InputError

KINDS = ("classifier", "pattern")  # what a CAV is
_STEPS, _HALVINGS, _TOLERANCE = 50, 30, 1e-9  # of Newton's method, and when it has converged


@dataclass(frozen=True)
class CavSpec:
    """How the CAVs of a concept are fitted; the keys are those of config section `tcav`."""

    set_size: int  # clips in a set
    random_sets: int  # random sets, hence CAVs, K > 1
    heldout_share: float  # of the clips with and without the concept, in (0, 1)
    inverse_l2: float  # of the logistic regression, > 0; activations are expected at unit scale
    kind: str  # of `KINDS`
    permutations: int  # of labels, for the AUC's p-value


@dataclass(frozen=True)
class CavSet:
    """The CAVs of one concept at one layer, one per random set."""

    concept: np.ndarray  # [K, D] directions from random clips to clips with the concept
    null: np.ndarray  # [K, D] directions between two random sets
    relative: np.ndarray | None  # [K, D] from its category's other clips; None: too few of them
    shared: float  # mean share of clips that two concept CAVs have in common, in [0, 1)
    relative_shared: float  # the same of the relative CAVs; 0 without
    accuracy: float  # mean balanced accuracy of the classifiers on held-out clips
    auc: float  # their mean area under the ROC curve on held-out clips
    auc_p: float  # one-sided: how often permuted labels of the held-out clips give as much
    pattern_cosine: float  # mean cosine of classifier and pattern CAV, in [-1, 1]
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


def classifiers(
    positive: np.ndarray, negative: np.ndarray, *, inverse_l2: float
) -> tuple[np.ndarray, np.ndarray]:
    """Return normals [K, D] and intercepts [K] of the linear classifiers between sets [K, n, D].

    Logistic regression that minimises |w|^2 / 2 + C sum log(1 + exp(-y (x w + b))), C the
    `inverse_l2` (> 0), by Newton's method for all K at once. w lies in the span of the examples, so
    it is sought there, exactly, with one unknown per example. The smaller C, the nearer w is to the
    difference of the means: with about as many axes as examples, a weak penalty fits the sample and
    not the concept.
    """
    x = np.concatenate([positive, negative], axis=1)  # (K, 2n, D)
    y = np.repeat([1.0, -1.0], [positive.shape[1], negative.shape[1]])
    gram = x @ x.transpose(0, 2, 1)
    found, intercepts = np.zeros(x.shape[:2]), np.zeros(len(x))

    def loss(a, b):
        scores = (gram @ a[..., None])[..., 0]
        return (a * scores).sum(1) / 2 + inverse_l2 * np.logaddexp(
            0, -y * (scores + b[:, None])
        ).sum(1)

    for _ in range(_STEPS):
        margins = (gram @ found[..., None])[..., 0] + intercepts[:, None]
        wrong = expit(-y * margins)
        weight = np.maximum(wrong * (1 - wrong), 1e-10)
        target = margins + y * wrong / weight  # of the weighted least squares of a Newton step
        system = gram + np.eye(len(y)) / (inverse_l2 * weight[:, None, :])
        sides = np.stack([target, np.ones_like(target)], axis=2)
        by_target, by_one = np.moveaxis(np.linalg.solve(system, sides), 2, 0)
        b = by_target.sum(1) / by_one.sum(1)
        step, step_b = by_target - b[:, None] * by_one - found, b - intercepts
        share, before = np.ones(len(x)), loss(found, intercepts)
        for _ in range(_HALVINGS):  # a step that climbs is halved
            climbs = (
                loss(found + share[:, None] * step, intercepts + share * step_b) > before + 1e-12
            )
            if not climbs.any():
                break
            share[climbs] /= 2
        found, intercepts = found + share[:, None] * step, intercepts + share * step_b
        if np.abs(share[:, None] * step).max() <= _TOLERANCE:
            break
    return np.einsum("kn,knd->kd", found, x), intercepts


def patterns(positive: np.ndarray, negative: np.ndarray) -> np.ndarray:
    """Return pattern CAVs [K, D] of balanced sets [K, n, D]: the covariance of clip and label.

    With as many clips of each kind it is the difference of the means, up to its length: what the
    concept changes in the activations, whatever else varies with it. A classifier also leans on
    axes that only help to cancel noise.

    **Source:** Haufe et al. 2014 (patterns of linear models); Pahde et al. 2022 (pattern CAVs).
    """
    return positive.mean(axis=1) - negative.mean(axis=1)


def fit_cavs(
    activations: np.ndarray,
    positive: np.ndarray,
    *,
    rivals: np.ndarray | None,
    spec: CavSpec,
    rng: np.random.Generator,
) -> CavSet:
    """Fit one CAV and one null CAV per random set.

    A share of the clips with and of the clips without the concept is held out to measure the CAVs.
    From the others, a CAV takes `set_size` clips of each kind (all, where there are fewer), and its
    null CAV the same random clips against as many others.

    Args:
        activations: [N, D].
        positive: [N] bool, which clips carry the concept; both kinds must occur.
        rivals: [N] bool, which clips carry other concepts of its category and not this one: against
            them the relative CAVs are fitted. None, or fewer than a set: there are none.
        spec: sizes, penalty, kind.
        rng: source of all draws.

    Raises:
        InputError: sets of two clips cannot be drawn.
    """
    with_it, heldout_with = _hold_out(np.flatnonzero(positive), spec.heldout_share, rng)
    without, heldout_without = _hold_out(np.flatnonzero(~positive), spec.heldout_share, rng)
    size = min(spec.set_size, len(with_it), len(without) // 2)
    if size < 2:
        raise InputError(
            f"tcav: {positive.sum()} clips with a tag and {(~positive).sum()} without make no sets "
            "of two clips besides the held-out ones. Raise tcav.set_size: it is also the least "
            "number of clips that a concept needs."
        )
    count = spec.random_sets
    concept_sets = draw_sets(with_it, size=size, count=count, rng=rng)
    pairs = draw_sets(without, size=2 * size, count=count, rng=rng)
    random, others = activations[pairs[:, :size]], activations[pairs[:, size:]]
    clips = activations[concept_sets]
    normals, intercepts = classifiers(clips, random, inverse_l2=spec.inverse_l2)
    directions = patterns(clips, random)
    heldout = activations[np.concatenate([heldout_with, heldout_without])]
    truth = np.repeat([True, False], [len(heldout_with), len(heldout_without)])
    accuracy, auc, auc_p = _quality(
        heldout @ normals.T + intercepts, truth, permutations=spec.permutations, rng=rng
    )
    relative, relative_shared = None, 0.0
    against = () if rivals is None else np.intersect1d(without, np.flatnonzero(rivals))
    if len(against) >= size:
        rival_sets = draw_sets(against, size=size, count=count, rng=rng)
        relative = _fit(clips, activations[rival_sets], spec)
        relative_shared = (shared_share(concept_sets) + shared_share(rival_sets)) / 2
    return CavSet(
        concept=normals if spec.kind == "classifier" else directions,
        null=_fit(random, others, spec),
        relative=relative,
        shared=(shared_share(concept_sets) + shared_share(pairs[:, :size])) / 2,
        relative_shared=relative_shared,
        accuracy=accuracy,
        auc=auc,
        auc_p=auc_p,
        pattern_cosine=float((unit(normals) * unit(directions)).sum(axis=1).mean()),
        n_concept=size,
    )


def _fit(positive: np.ndarray, negative: np.ndarray, spec: CavSpec) -> np.ndarray:
    if spec.kind == "pattern":
        return patterns(positive, negative)
    return classifiers(positive, negative, inverse_l2=spec.inverse_l2)[0]


def _hold_out(clips: np.ndarray, share: float, rng) -> tuple[np.ndarray, np.ndarray]:
    """Split clips at random into (the rest, a share of at least one)."""
    shuffled = rng.permutation(clips)
    count = max(1, round(share * len(clips)))
    return shuffled[count:], shuffled[:count]


def _quality(margins: np.ndarray, truth: np.ndarray, *, permutations: int, rng) -> tuple:
    """Return mean balanced accuracy and AUC of margins [H, K] of clips, and the AUC's p-value.

    The mean AUC of K classifiers is linear in the mean rank of the clips, so permuted labels cost a
    sum each; the classifiers stay as they are.
    """
    hits = (margins > 0) == truth[:, None]
    accuracy = (hits[truth].mean() + hits[~truth].mean()) / 2
    ranks = rankdata(margins, axis=0).mean(axis=1)
    n = int(truth.sum())
    permuted = rng.permuted(np.tile(ranks, (permutations, 1)), axis=1)[:, :n].sum(axis=1)
    at_least = (permuted >= ranks[truth].sum() - 1e-9).sum()
    auc = (ranks[truth].sum() - n * (n + 1) / 2) / (n * (len(truth) - n))
    return float(accuracy), float(auc), float((1 + at_least) / (1 + permutations))


def positive_share(gradients: np.ndarray, directions: np.ndarray) -> np.ndarray:
    """Return, per direction [K, D], the share of gradients [C, D] with a positive derivative, [K].

    **Source:** Kim et al. 2018, equation 2: the TCAV score.
    """
    return (gradients @ directions.T > 0).mean(axis=0)


def alignment(gradients: np.ndarray, directions: np.ndarray) -> np.ndarray:
    """Return, per direction [K, D], its mean cosine with the gradients [C, D], [K] in [-1, 1].

    The size behind the sign that `positive_share` counts; a gradient of zero counts as 0.
    """
    return (unit(gradients) @ unit(directions).T).mean(axis=0)


def cosine_share(activations: np.ndarray, directions: np.ndarray, *, above: float) -> np.ndarray:
    """Return, per direction [K, D], the share of activations [C, D] with a cosine `above`, [K].

    What the reference implementation of the paper calls a TCAV score. It holds no derivative and no
    class: activations after a ReLU have a mean, and whatever points along it passes.
    """
    return (unit(activations) @ unit(directions).T > above).mean(axis=0)


def unit(vectors: np.ndarray) -> np.ndarray:
    """Return vectors [..., D] at length 1; zero stays zero."""
    norms = np.linalg.norm(vectors, axis=-1, keepdims=True)
    return np.divide(vectors, norms, out=np.zeros_like(vectors), where=norms > 0)
