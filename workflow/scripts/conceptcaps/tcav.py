"""TCAV: which concepts does a classifier use? With a null, two tests and two controls.

For a classifier of your own, fill two tables of arrays and call `test_concepts`: docs/tcav.md has
an example. `score` does so for the workflow's genre classifier.

**Source:** Kim et al. 2018, "Interpretability beyond feature attribution" (TCAV).
**Differs:** the score is Kim's share of positive derivatives, but the t-test compares alignments
(mean cosine of gradient and CAV), with a standard error that counts the clips which several sets
share. One set of clips gives much the same CAV against every random set, so its scores are not
independent, and shares stick at 0 and 1: in a trial with 240 synthesised clips and random labels,
Kim's test of the shares found 11-61 % significant at 5 %, this one 2-3 %. A permutation test of the
clips' labels, which knows nothing of sets, has to agree.
Two controls, shuffled and planted, run with every table.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from conceptcaps import cav, significance
from conceptcaps.activations import read_activations, read_classes
from conceptcaps.concepts import Concept, choose_concepts
from conceptcaps.errors import InputError, nearest
from conceptcaps.genrenet import GenreCNN, load
from conceptcaps.io import read_json, read_rows, write_table
from conceptcaps.runlog import progress
from conceptcaps.schemas import LEDGER, TCAV
from conceptcaps.seeding import item_rng

PLANTED_SHIFT = 2.0  # of the planted concept, in standard deviations along the class's direction
REFERENCE_COSINE = 0.1  # above which the paper's code counts an activation


@dataclass(frozen=True)
class Spec:
    """Config section `tcav`."""

    layers: list[str]  # names of the classifier's layers
    categories: list[str]  # of the taxonomy, whose tags are tested
    concepts: list[str] | None  # tags to test; None: every tag of `categories` with enough clips
    cav: str  # what a CAV is: classifier or pattern
    set_size: int  # clips in a concept set and in a random set; fewer clips: not tested
    random_sets: int  # random sets, hence CAVs, per concept
    heldout_share: float  # of the clips with and without the tag, for the CAV's accuracy
    inverse_l2: float  # of the CAVs' logistic regression, > 0; small: a strong penalty
    permutations: int  # of labels; the least p-value is 1 / (permutations + 1)
    class_clips: int  # held-out clips of a genre, at most, whose logits are differentiated
    alpha: float  # significance level after Holm's correction

    def cavs(self) -> cav.CavSpec:
        """Return what the CAVs need to know."""
        return cav.CavSpec(
            set_size=self.set_size,
            random_sets=self.random_sets,
            heldout_share=self.heldout_share,
            inverse_l2=self.inverse_l2,
            kind=self.cav,
            permutations=self.permutations,
        )


def score(
    *,
    model: str | Path,
    config: str | Path,
    gtzan: str | Path,
    tags: str | Path,
    taxonomy: str | Path,
    audio: Iterable[str | Path],
    spec: Spec,
    seed: int,
    output: str | Path,
    ledger: str | Path,
) -> None:
    """Score every concept against every genre at every layer; write table `schemas.TCAV`.

    Clips enter as the mean over their windows, of activations and of gradients, and a convolution
    as its mean over frequency and time (a CAV is then a direction that is the same at every
    position; the derivative sums the gradient over positions). The ledger has a row per concept
    that was asked for: ok, or why it was not tested.

    Raises:
        InputError: unknown layers or concepts, no concept with enough clips, no held-out clips.
    """
    network, described = load(model, config)
    _check_layers(network, spec.layers, model)
    network.to("cuda" if torch.cuda.is_available() else "cpu")
    window = {
        "sampling_rate_hz": described["sampling_rate_hz"],
        "window_s": described["spec"]["window_s"],
    }
    activations, ids = read_activations(network, audio, spec.layers, window)
    concepts, fates = choose_concepts(
        read_rows(tags),
        ids,
        read_json(taxonomy),
        concepts=spec.concepts,
        categories=spec.categories,
        set_size=spec.set_size,
    )
    gradients, of_classes = read_classes(
        network,
        gtzan,
        described,
        window,
        layers=spec.layers,
        class_clips=spec.class_clips,
        seed=seed,
    )
    rows = test_concepts(
        activations, gradients, concepts, class_activations=of_classes, spec=spec, seed=seed
    )
    write_table(ledger, fates, LEDGER)
    write_table(output, rows, TCAV)
    report_controls(rows)


def test_concepts(
    activations: dict[str, np.ndarray],
    gradients: dict[str, dict[str, np.ndarray]],
    concepts: dict[str, Concept],
    *,
    class_activations: dict[str, dict[str, np.ndarray]] | None = None,
    spec: Spec,
    seed: int,
) -> list[dict]:
    """Return the rows of `schemas.TCAV` for any classifier, the two controls among them.

    The TCAV score of a CAV v for class k is the share of k's clips x with S(x) > 0, where S(x) is
    the derivative of the logit of k along v at layer l.

    Args:
        activations: {layer: [N, D]} of the clips that do or do not carry the concepts.
        gradients: {layer: {class: [C, D]}} of each class's logit at clips of that class which the
            classifier was not trained on.
        concepts: {name: Concept} over the same N clips; each needs `spec.set_size` clips with it
            and as many without.
        class_activations: {layer: {class: [C, D]}}, for the reference's `cosine_share` alone.
        spec: layers, sets, tests; `categories`, `concepts` and `class_clips` are not read.
        seed: decides all draws.

    Raises:
        InputError: a class without clips, values that are not finite, a layer that is constant.
    """
    rows = []
    typical = int(np.median([concept.positive.sum() for concept in concepts.values()]))
    for layer in spec.layers:
        table = Table(
            layer,
            activations[layer],
            gradients[layer],
            spec,
            seed,
            class_activations=(class_activations or {}).get(layer),
        )
        for name, concept in progress(concepts.items(), what=f"CAVs at {layer}"):
            rows += table.concept_rows(name, concept)
        rows += table.shuffled_rows(typical) + table.planted_rows(typical)
    return correct(rows, alpha=spec.alpha)


test_concepts.__test__ = False  # a test of concepts, not of this code


def _check_layers(network: GenreCNN, layers: list[str], model) -> None:
    known = [name for name, _ in network.named_children()]
    for layer in layers:
        if layer not in known:
            raise InputError(
                f"tcav.layers: {model} has no layer '{layer}', only {', '.join(known)}."
                f"{nearest(layer, known)}"
            )


class Table:
    """Rows of one layer: its activations [N, D] of all clips and its gradients per class."""

    def __init__(
        self,
        layer: str,
        activations: np.ndarray,
        gradients: dict[str, np.ndarray],
        spec: Spec,
        seed: int,
        *,
        class_activations: dict[str, np.ndarray] | None = None,
    ):
        """Bring the activations to unit scale: one number for all axes, so directions stay.

        Raises:
            InputError: a class without clips, values that are not finite, a constant layer.
        """
        for name, values in {"the clips": activations, **gradients}.items():
            if not len(values) or not np.isfinite(values).all():
                what = "values that are not finite" if len(values) else "no clips"
                raise InputError(
                    f"tcav: layer '{layer}' has {what} for {name}. Mend or leave them out."
                )
        scale = activations.std(axis=0).mean()
        if not scale:
            raise InputError(
                f"tcav: layer '{layer}' gives the same for every clip, so no direction means "
                "anything there. Choose another layer (tcav.layers)."
            )
        self.layer, self.gradients, self.spec, self.seed = layer, gradients, spec, seed
        self.activations = activations / scale
        self.class_activations = class_activations or {}

    def concept_rows(self, name: str, concept: Concept) -> list[dict]:
        """Return one row per class for the clips that carry a concept."""
        return self._rows(name, concept, self.gradients, "")

    def shuffled_rows(self, size: int) -> list[dict]:
        """Return the control whose labels mean nothing: `size` clips at random as the concept."""
        concept = Concept("", self._at_random("shuffled", size))
        return self._rows("shuffled", concept, self.gradients, "shuffled")

    def planted_rows(self, size: int) -> list[dict]:
        """Return the control with a known answer, one concept per class.

        `size` clips at random are moved along the mean gradient of the class's logit by
        `PLANTED_SHIFT` standard deviations of all clips along it.
        """
        rows = []
        for name, gradients in self.gradients.items():
            direction = gradients.mean(axis=0)
            direction /= np.linalg.norm(direction) or 1.0
            shift = PLANTED_SHIFT * (self.activations @ direction).std() * direction
            concept = Concept("", self._at_random(f"planted/{name}", size))
            rows += self._rows("planted", concept, {name: gradients}, "planted", shift=shift)
        return rows

    def _at_random(self, name: str, size: int) -> np.ndarray:
        rng = item_rng(self.seed, "tcav/control", name)
        positive = np.zeros(len(self.activations), bool)
        positive[rng.choice(len(positive), size, replace=False)] = True
        return positive

    def _rows(self, name, concept, gradients, control, *, shift=0.0) -> list[dict]:
        """Fit the CAVs of clips, the positive ones moved by `shift`, and score `gradients`."""
        rng = item_rng(
            self.seed,
            "tcav/sets",
            f"{self.layer}/{name}/{'/'.join(gradients) if control else ''}",
        )
        activations = self.activations + concept.positive[:, None] * shift
        cavs = cav.fit_cavs(
            activations, concept.positive, rivals=concept.rivals, spec=self.spec.cavs(), rng=rng
        )
        exchanged = significance.permutation_p(
            activations,
            concept.positive,
            gradients,
            permutations=self.spec.permutations,
            rng=rng,
        )
        shared = {
            "layer": self.layer,
            "concept": name,
            "category": concept.category,
            "control": control,
            "cav_accuracy": cavs.accuracy,
            "cav_auc": cavs.auc,
            "cav_p": cavs.auc_p,
            "pattern_cosine": cavs.pattern_cosine,
            "sets_shared": cavs.shared,
            "n_positive": int(concept.positive.sum()),
            "n_concept": cavs.n_concept,
            "n_random_sets": self.spec.random_sets,
        }
        return [
            shared
            | {"genre": genre, "p_permutation": exchanged[genre]}
            | _statistics(gradient, cavs)
            | {"cosine_share": self._cosine_share(genre, cavs)}
            for genre, gradient in gradients.items()
        ]

    def _cosine_share(self, genre: str, cavs: cav.CavSet) -> float | None:
        if genre not in self.class_activations:
            return None
        of_class = self.class_activations[genre]
        return float(cav.cosine_share(of_class, cavs.concept, above=REFERENCE_COSINE).mean())


def _statistics(gradients: np.ndarray, cavs: cav.CavSet) -> dict:
    scores = cav.positive_share(gradients, cavs.concept)
    null = significance.both_orders(cav.positive_share, gradients, cavs.null)
    alignments = cav.alignment(gradients, cavs.concept)
    null_alignments = significance.both_orders(cav.alignment, gradients, cavs.null)
    low, high = significance.effect_interval(
        scores, null, n_class=len(gradients), shared=cavs.shared
    )
    relative, relative_p = None, None
    if cavs.relative is not None:
        relative = float(cav.positive_share(gradients, cavs.relative).mean())
        relative_p = significance.welch(
            cav.alignment(gradients, cavs.relative), null_alignments, shared=cavs.relative_shared
        )
    return {
        "tcav": float(scores.mean()),
        "tcav_sd": float(scores.std(ddof=1)),
        "null_mean": float(null.mean()),
        "null_sd": float(null.std(ddof=1)),
        "effect": float(scores.mean() - null.mean()),
        "effect_low": low,
        "effect_high": high,
        "alignment": float(alignments.mean()),
        "p_value": significance.welch(alignments, null_alignments, shared=cavs.shared),
        "relative": relative,
        "relative_p": relative_p,
        "n_class": len(gradients),
        "alignments": alignments,
        "null_alignments": null_alignments,
    }


def correct(rows: list[dict], *, alpha: float) -> list[dict]:
    """Add p_holm and significant to rows: Holm over all concepts, and over each control apart.

    The relative scores are a family of their own; `relative_p` becomes Holm's.
    """
    for control in sorted({row["control"] for row in rows}):
        family = [row for row in rows if row["control"] == control]
        adjusted = significance.holm(np.array([row["p_value"] for row in family]))
        for row, p_holm in zip(family, adjusted, strict=True):
            found = max(p_holm, row["p_permutation"]) < alpha
            row |= {"p_holm": float(p_holm), "significant": bool(found)}
    compared = [row for row in rows if row["relative_p"] is not None]
    adjusted = significance.holm(np.array([row["relative_p"] for row in compared]))
    for row, p_holm in zip(compared, adjusted, strict=True):
        row |= {"relative_p": float(p_holm), "relative_significant": bool(p_holm < alpha)}
    return rows


def report_controls(rows: list[dict]) -> None:
    """Say in the log what was found, and whether the controls behaved."""
    for control, what in (("", "concepts"), ("shuffled", "shuffled"), ("planted", "planted")):
        family = [row for row in rows if row["control"] == control]
        found = sum(row["significant"] for row in family)
        print(f"{what}: {found} of {len(family)} concept-genre-layer rows significant")
        if control == "shuffled" and found:
            print(
                "warning: a shuffled concept is significant: a share alpha of runs is expected to"
            )
        if control == "planted" and found < len(family):
            print("warning: a planted concept was not found; the test lacks power: more clips")
