"""What TCAV reads from a classifier: activations of concept clips, gradients of class clips.

A clip counts once, as the mean over its windows; a convolution as its mean over frequency and time
(the gradient: as its sum), so that a CAV is a direction that is the same at every position.
"""

from collections.abc import Iterable
from pathlib import Path

import numpy as np
import torch
from captum.attr import LayerActivation, LayerGradientXActivation
from torch import nn

from conceptcaps.clips import iter_clips
from conceptcaps.errors import InputError
from conceptcaps.genrenet import cut_windows
from conceptcaps.io import read_rows
from conceptcaps.runlog import progress
from conceptcaps.seeding import item_seed


def read_activations(
    network: nn.Module, audio: Iterable[str | Path], layers: list[str], window: dict
) -> tuple[dict[str, np.ndarray], list[str]]:
    """Return ({layer: [N, D] float64}, clip ids) of all clips of the audio tables.

    `window` holds `sampling_rate_hz` and `window_s`.

    Raises:
        InputError: the tables hold no clips, or one that cannot be decoded.
    """
    collected, ids = {layer: [] for layer in layers}, []
    reader = LayerActivation(network, [network.get_submodule(layer) for layer in layers])
    clips = (clip for path in audio for clip in iter_clips(path, window["sampling_rate_hz"]))
    with torch.no_grad():
        for row, wave in progress(clips, what="activations"):
            outputs = reader.attribute(cut_windows(wave, **window).to(_device(network)))
            for layer, values in zip(layers, outputs, strict=True):
                collected[layer].append(_over_positions(values, torch.mean).mean(0).cpu().numpy())
            ids.append(row["id"])
    if not ids:
        raise InputError("tcav: the audio tables hold no clips. See the ledgers of generate_audio.")
    return {layer: np.stack(values).astype(np.float64) for layer, values in collected.items()}, ids


def _device(network: nn.Module) -> torch.device:
    return next(network.parameters()).device


def _over_positions(values: torch.Tensor, reduce) -> torch.Tensor:
    """Reduce [W, D, ...] over all but its first two axes to [W, D]."""
    return values if values.ndim == 2 else reduce(values.flatten(2), dim=2)


def class_gradients(
    network: nn.Module,
    gtzan: str | Path,
    described: dict,
    window: dict,
    *,
    layers: list[str],
    class_clips: int,
    seed: int,
) -> dict[str, dict[str, np.ndarray]]:
    """Return {layer: {genre: [clips, D]}}: gradients of a genre's logit at its held-out clips.

    `described` holds the classifier's `classes` and `split`.

    Raises:
        InputError: the table lacks the test clips of a genre.
    """
    chosen = heldout_clips(gtzan, described, class_clips, seed)
    modules = [network.get_submodule(layer) for layer in layers]
    reader = LayerGradientXActivation(network, modules, multiply_by_inputs=False)
    found = {layer: {genre: [] for genre in described["classes"]} for layer in layers}
    for row, wave in progress(iter_clips(gtzan, window["sampling_rate_hz"]), what="gradients"):
        if row["id"] not in chosen:
            continue
        windows = cut_windows(wave, **window).to(_device(network))
        target = described["classes"].index(row["genre"])
        for layer, values in zip(layers, reader.attribute(windows, target), strict=True):
            gradient = _over_positions(values.detach(), torch.sum).mean(0)
            found[layer][row["genre"]].append(gradient.cpu().numpy().astype(np.float64))
    return {
        layer: {genre: np.stack(values) for genre, values in genres.items()}
        for layer, genres in found.items()
    }


def heldout_clips(gtzan: str | Path, described: dict, most: int, seed: int) -> set[str]:
    """Return the ids of up to `most` clips of each genre among the classifier's test clips.

    Raises:
        InputError: the table lacks the test clips of a genre.
    """
    test, chosen = set(described["split"]["test"]), set()
    rows = [row for row in read_rows(gtzan, ["id", "genre"]) if row["id"] in test]
    for genre in described["classes"]:
        ids = [row["id"] for row in rows if row["genre"] == genre]
        if not ids:
            raise InputError(
                f"{gtzan}: holds none of the classifier's test clips of genre '{genre}'. "
                "It is not the table that the classifier was trained on: run fit_genrecnn again."
            )
        chosen.update(sorted(ids, key=lambda i: item_seed(seed, "tcav/class", i))[:most])
    return chosen
