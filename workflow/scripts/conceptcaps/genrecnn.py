"""Train the genre classifier on a split by genre and measure it on held-out clips."""

import json
import math
from dataclasses import asdict
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import save_file
from torch.nn import functional

from conceptcaps.clips import iter_clips
from conceptcaps.errors import InputError
from conceptcaps.genrenet import FFT_S, GenreCNN, Spec, augment, cut_windows, vote
from conceptcaps.genresplit import read_split, split_clips
from conceptcaps.io import atomic, read_rows, write_json
from conceptcaps.results import MetricResult, bootstrap_mean, share, versions, write_metrics
from conceptcaps.runlog import progress
from conceptcaps.seeding import item_seed, seed_everything

CALIBRATION_BINS = 10  # equal bins of confidence in the expected calibration error


def fit(
    *,
    clips: str | Path,
    spec: Spec,
    sampling_rate_hz: int,
    seed: int,
    splits: list[str | Path],
    model: str | Path,
    config: str | Path,
    metrics: str | Path,
) -> None:
    """Train on a genre corpus (table `schemas.GENRE_CLIPS`) and report the held-out clips.

    `splits` are the lists of `genresplit.read_split`, or none for a split by genre and seed. Writes
    the weights of the epoch with the best validation loss, a config (classes, sampling rate,
    spec, ids of each part of the split) and metrics with the confusion matrix (rows: truth) in
    clips, the classes and the training history.

    Raises:
        InputError: fewer than two genres, a genre with too few clips, or as `read_split`.
    """
    rows = read_rows(clips, ["id", "genre", "sha256"])
    classes = sorted({row["genre"] for row in rows})
    if len(classes) < 2:
        raise InputError(f"{clips}: has {len(classes)} genre(s); a classifier needs at least two.")
    split = (
        read_split(splits, rows)
        if splits
        else split_clips(rows, validation=spec.validation, test=spec.test, seed=seed)
    )
    print(f"{len(classes)} genres; " + ", ".join(f"{part}: {len(split[part])}" for part in split))
    device = "cuda" if torch.cuda.is_available() else "cpu"
    seed_everything(item_seed(seed, "genrecnn", "training"))
    network = GenreCNN(spec, classes=len(classes), sampling_rate_hz=sampling_rate_hz).to(device)
    features = _features(network, clips, sampling_rate_hz, spec.window_s)
    genre = {row["id"]: classes.index(row["genre"]) for row in rows}
    history = train(
        network,
        train=_windows_of(split["train"], features, genre),
        validation=_windows_of(split["validation"], features, genre),
        spec=spec,
    )
    with atomic(model) as temporary:
        weights = {name: tensor.cpu().contiguous() for name, tensor in network.state_dict().items()}
        save_file(weights, temporary, metadata={"classes": json.dumps(classes)})
    described = {"classes": classes, "sampling_rate_hz": sampling_rate_hz, "spec": asdict(spec)}
    write_json(config, {**described, "split": split})
    described |= {"split": "lists" if splits else "by genre and seed"}
    recipe = described | {"seed": seed, "fft_s": FFT_S} | versions("torch", "soxr")
    results, told = evaluate(network, split["test"], features, genre, recipe)
    write_metrics(metrics, results, **told, classes=classes, history=history)


def _features(network: GenreCNN, clips: str | Path, rate: int, window_s: float) -> dict:
    """Return {clip id: log-mel windows [W, mel, frames]}: once, as nothing is augmented."""
    device, features = network.filters.device, {}
    with torch.no_grad():
        for row, wave in progress(iter_clips(clips, rate), what="log-mel"):
            windows = cut_windows(wave, sampling_rate_hz=rate, window_s=window_s)
            features[row["id"]] = network.log_mel(windows.to(device)).cpu()
    return features


def _windows_of(ids: list[str], features: dict, genre: dict) -> tuple[torch.Tensor, torch.Tensor]:
    labels = [genre[clip_id] for clip_id in ids for _ in features[clip_id]]
    return torch.cat([features[clip_id] for clip_id in ids]), torch.tensor(labels)


def train(network: GenreCNN, *, train: tuple, validation: tuple, spec: Spec) -> list[dict]:
    """Minimise the cross-entropy of log-mel windows; leave the best epoch's weights in `network`.

    Args:
        network: changed in place.
        train: (log-mel windows [N, mel, frames], labels [N]).
        validation: the same, for early stopping.
        spec: epochs, patience, batch size, learning rate.

    Returns:
        One {"epoch", "train_loss", "validation_loss", "validation_accuracy"} per epoch (nats).
    """
    device = network.filters.device
    steps = spec.epochs * math.ceil(len(train[1]) / spec.batch_size)
    optimizer = torch.optim.AdamW(network.parameters(), lr=spec.learning_rate)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, spec.learning_rate, total_steps=steps)
    history, best, best_loss, best_epoch = [], {}, math.inf, 0
    for epoch in range(1, spec.epochs + 1):
        network.train()
        total = 0.0
        for batch in torch.randperm(len(train[1])).split(spec.batch_size):
            windows = augment(train[0][batch].to(device), **spec.augment)
            logits = network.classify(windows)
            loss = functional.cross_entropy(logits, train[1][batch].to(device))
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
            total += loss.item() * len(batch)
        logits = _logits(network, validation[0])
        validation_loss = functional.cross_entropy(logits, validation[1]).item()
        row = {
            "epoch": epoch,
            "train_loss": total / len(train[1]),
            "validation_loss": validation_loss,
            "validation_accuracy": (logits.argmax(1) == validation[1]).float().mean().item(),
        }
        history.append(row)
        print("  ".join(f"{key} {value:.4g}" for key, value in row.items()), flush=True)
        if validation_loss < best_loss:
            best_loss, best_epoch = validation_loss, epoch
            best = {name: tensor.clone() for name, tensor in network.state_dict().items()}
        elif epoch - best_epoch >= spec.patience:
            print(f"stopped: no better validation loss for {spec.patience} epochs")
            break
    network.load_state_dict(best)
    network.eval()
    return history


@torch.no_grad()
def _logits(network: GenreCNN, log_mel: torch.Tensor) -> torch.Tensor:
    network.eval()
    device = network.filters.device
    return torch.cat([network.classify(part.to(device)).cpu() for part in log_mel.split(256)])


def evaluate(network: GenreCNN, ids: list[str], features: dict, genre: dict, recipe: dict) -> tuple:
    """Return (metrics, {"confusion": `[true][predicted]` in clips, "reliability"}) of clips `ids`.

    clip_accuracy has Wilson's interval; window_accuracy resamples clips, as the windows of a clip
    are not independent. The calibration error is above 0 by chance alone and resamples more so: it
    has no interval, but beside it what a calibrated classifier of the same confidences would have.
    """
    windows = [_logits(network, features[clip_id]) for clip_id in ids]
    truth = np.array([genre[clip_id] for clip_id in ids])
    votes = torch.stack([vote(logits) for logits in windows]).exp().numpy()  # (clips, classes)
    guesses = votes.argmax(axis=1)
    right = guesses == truth
    confusion = np.zeros((votes.shape[1], votes.shape[1]), int)
    np.add.at(confusion, (truth, guesses), 1)
    shares = [
        (z.argmax(1) == int(k)).float().mean().item() for z, k in zip(windows, truth, strict=True)
    ]
    confidence = votes.max(axis=1)
    drawn = np.random.default_rng(recipe["seed"]).random((1000, len(ids))) < confidence
    errors = [calibration_error(confidence, hits) for hits in drawn]
    n = len(ids)
    results = [
        MetricResult("clip_accuracy", *share(right), n, "higher", recipe),
        MetricResult(
            "window_accuracy", *bootstrap_mean(shares, seed=recipe["seed"]), n, "higher", recipe
        ),
        MetricResult(
            "expected_calibration_error",
            calibration_error(confidence, right),
            None,
            None,
            n,
            "lower",
            recipe | {"bins": CALIBRATION_BINS},
        ),
        MetricResult(
            "calibration_error_null",
            float(np.mean(errors)),
            *(float(q) for q in np.quantile(errors, [0.025, 0.975])),
            n,
            "none",
            recipe | {"bins": CALIBRATION_BINS, "draws": len(drawn)},
        ),
    ]
    return results, {
        "confusion": confusion.tolist(),
        "reliability": reliability(confidence, right),
    }


def calibration_error(confidence: np.ndarray, right: np.ndarray) -> float:
    """Return the expected calibration error of confidences [N] in [0, 1] and hits [N].

    sum_b (n_b / N) |accuracy_b - mean confidence_b| over equal bins b of confidence.

    **Source:** Guo et al. 2017, equation 3.
    """
    bins = _bins(confidence)
    gaps = np.zeros(CALIBRATION_BINS)
    np.add.at(gaps, bins, right.astype(float) - confidence)
    return float(np.abs(gaps).sum() / len(confidence))


def reliability(confidence: np.ndarray, right: np.ndarray) -> list[dict]:
    """Return {low, high, n, confidence, accuracy} of each bin with clips: a reliability diagram."""
    bins, rows = _bins(confidence), []
    for b in np.unique(bins):
        inside = bins == b
        rows.append(
            {
                "low": float(b / CALIBRATION_BINS),
                "high": float((b + 1) / CALIBRATION_BINS),
                "n": int(inside.sum()),
                "confidence": float(confidence[inside].mean()),
                "accuracy": float(right[inside].mean()),
            }
        )
    return rows


def _bins(confidence: np.ndarray) -> np.ndarray:
    return np.minimum((confidence * CALIBRATION_BINS).astype(int), CALIBRATION_BINS - 1)
