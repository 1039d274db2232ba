"""Calibration of verdicts: figures of labelled clips to probabilities, and how good they are."""

from dataclasses import dataclass

import numpy as np
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import StratifiedKFold, cross_val_predict
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import StandardScaler

from conceptcaps.clap import auc

FOLDS = 5
MIN_CLIPS = 10  # with a tag and without, to calibrate it


@dataclass(frozen=True)
class Calibration:
    """A fitted calibration and its cross-validated quality."""

    model: Pipeline
    quality: dict  # n_labelled, n_with, auc, precision, recall, false_alarms

    def probability(self, figures: np.ndarray) -> np.ndarray:
        """Return the probability [N] that the tag is heard, at even odds, of figures [N, F]."""
        return self.model.predict_proba(figures)[:, 1]


def fit(figures: np.ndarray, truth: np.ndarray) -> Calibration | None:
    """Fit a logistic regression with both kinds at equal weight; None if clips do not suffice.

    Its quality is that of folds which did not take part in the fit: `recall` and `false_alarms`,
    the shares of clips with and without the tag that are heard to have it (probability of a half or
    more), and `precision` at the labelled clips' own frequency.

    Args:
        figures: [N, F].
        truth: [N] bool, whether the clips have the tag.
    """
    n_with = int(truth.sum())
    if min(n_with, len(truth) - n_with) < MIN_CLIPS:
        return None
    model = make_pipeline(StandardScaler(), LogisticRegression(class_weight="balanced"))
    folds = StratifiedKFold(FOLDS, shuffle=True, random_state=0)
    crossed = cross_val_predict(model, figures, truth, cv=folds, method="predict_proba")[:, 1]
    heard = crossed >= 0.5
    quality = {
        "n_labelled": len(truth),
        "n_with": n_with,
        "auc": auc(crossed[truth], crossed[~truth]),
        "precision": float(truth[heard].mean()) if heard.any() else None,
        "recall": float(heard[truth].mean()),
        "false_alarms": float(heard[~truth].mean()),
    }
    return Calibration(model.fit(figures, truth), quality)


def dataset_quality(probs: np.ndarray, carried: np.ndarray, verifier: dict) -> dict:
    """Return how well a dataset's tag fits its audio.

    `heard_with` and `heard_without` are the shares of clips with and without the tag that are heard
    to have it. A verifier errs; knowing how often, the true shares are (heard - false alarms) /
    (recall - false alarms), cut to [0, 1]. From them follow `tag_precision`, the share of the
    tag's clips in which it sounds, and `tag_recall`, the share of clips in which it sounds that
    carry it; None where the verifier was not checked.

    Args:
        probs: [N], nan where there is no verdict.
        carried: [N] bool, whether the clips carry the tag.
        verifier: quality of its calibration, or nothing.

    **Source:** Rogan and Gladen 1978 for the correction.
    """
    found = {"n_carried": int(carried.sum())}
    found |= dict.fromkeys(("heard_with", "heard_without", "tag_precision", "tag_recall"))
    if not np.isfinite(probs).any():
        return found
    judged = [np.isfinite(probs) & kind for kind in (carried, ~carried)]
    shares = [float((probs[kind] >= 0.5).mean()) if kind.any() else None for kind in judged]
    found["heard_with"], found["heard_without"] = shares
    if "recall" not in verifier or None in shares:
        return found
    hit, alarm = verifier["recall"], verifier["false_alarms"]
    if hit <= alarm:
        return found
    with_it, without = (min(1.0, max(0.0, (share - alarm) / (hit - alarm))) for share in shares)
    right = with_it * carried.sum()
    sounding = right + without * (~carried).sum()
    found["tag_precision"] = float(with_it)
    found["tag_recall"] = float(right / sounding) if sounding else None
    return found
