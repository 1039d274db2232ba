"""What TCAV reads from a classifier: activations of concept clips, gradients of class clips.

Any torch module that maps windows of samples [W, T] to logits [W, classes] will do. A clip counts
once, as the mean over its windows; a convolution as its mean over frequency and time (the gradient:
as its sum), so that a CAV is a direction that is the same at every position.
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
        InputError: the tables hold no clips, or one that cannot be decoded; an activation is not
            finite.
    """
    collected, ids = {layer: [] for layer in layers}, []
    reader = LayerActivation(network, [network.get_submodule(layer) for layer in layers])
    clips = (clip for path in audio for clip in iter_clips(path, window["sampling_rate_hz"]))
    with torch.no_grad():
        for row, wave in progress(clips, what="activations"):
            outputs = reader.attribute(cut_windows(wave, **window).to(_device(network)))
            for layer, values in zip(layers, outputs, strict=True):
                collected[layer].append(_of_clip(values, torch.mean, row["id"], layer))
            ids.append(row["id"])
    if not ids:
        raise InputError("tcav: the audio tables hold no clips. See the ledgers of generate_audio.")
    return {layer: np.stack(values) for layer, values in collected.items()}, ids


def _of_clip(values: torch.Tensor, reduce, clip_id: str, layer: str) -> np.ndarray:
    """Return a clip's vector [D] float64 from its windows' values [W, D, ...].

    Raises:
        InputError: it is not finite.
    """
    vector = _over_positions(values.detach(), reduce).mean(0).cpu().numpy().astype(np.float64)
    if not np.isfinite(vector).all():
        raise InputError(
            f"tcav: at layer '{layer}' the classifier gives values that are not finite for clip "
            f"{clip_id}. If it does so for all clips its weights are broken: train it again."
        )
    return vector


def _device(network: nn.Module) -> torch.device:
    return next(network.parameters()).device


def _over_positions(values: torch.Tensor, reduce) -> torch.Tensor:
    """Reduce [W, D, ...] over all but its first two axes to [W, D]."""
    return values if values.ndim == 2 else reduce(values.flatten(2), dim=2)


def read_classes(
    network: nn.Module,
    gtzan: str | Path,
    described: dict,
    window: dict,
    *,
    layers: list[str],
    class_clips: int,
    seed: int,
) -> tuple[dict[str, dict[str, np.ndarray]], dict[str, dict[str, np.ndarray]]]:
    """Return gradients and activations at the held-out clips, {layer: {genre: [clips, D]}} each.

    The gradient is that of the genre's own logit. `described` holds the classifier's `classes` and
    `split`.

    Raises:
        InputError: the table lacks the test clips of a genre, or has genres that the classifier
            does not know; a value is not finite.
    """
    chosen = heldout_clips(gtzan, described, class_clips, seed)
    modules = [network.get_submodule(layer) for layer in layers]
    differentiate = LayerGradientXActivation(network, modules, multiply_by_inputs=False)
    activate = LayerActivation(network, modules)
    gradients, activations = (
        {layer: {genre: [] for genre in described["classes"]} for layer in layers} for _ in range(2)
    )
    heldout = iter_clips(gtzan, window["sampling_rate_hz"], ids=chosen)
    for row, wave in progress(heldout, what="gradients", total=len(chosen)):
        genre = row["genre"]
        windows = cut_windows(wave, **window).to(_device(network))
        slopes = differentiate.attribute(windows, described["classes"].index(genre))
        with torch.no_grad():
            levels = activate.attribute(windows)
        for layer, slope, level in zip(layers, slopes, levels, strict=True):
            gradients[layer][genre].append(_of_clip(slope, torch.sum, row["id"], layer))
            activations[layer][genre].append(_of_clip(level, torch.mean, row["id"], layer))
    return tuple(
        {
            layer: {genre: np.stack(values) for genre, values in genres.items()}
            for layer, genres in found.items()
        }
        for found in (gradients, activations)
    )


def heldout_clips(gtzan: str | Path, described: dict, most: int, seed: int) -> set[str]:
    """Return the ids of up to `most` clips of each genre among the classifier's test clips.

    Raises:
        InputError: the table lacks the test clips of a genre, or has genres that the classifier
            does not know.
    """
    test, chosen = set(described["split"]["test"]), set()
    rows = read_rows(gtzan, ["id", "genre"])
    if unknown := {row["genre"] for row in rows} - set(described["classes"]):
        raise InputError(
            f"{gtzan}: has clips of {', '.join(sorted(unknown))}, which the classifier was not "
            f"trained on (its classes: {', '.join(described['classes'])}). Run fit_genrecnn again."
        )
    rows = [row for row in rows if row["id"] in test]
    for genre in described["classes"]:
        ids = [row["id"] for row in rows if row["genre"] == genre]
        if not ids:
            raise InputError(
                f"{gtzan}: holds none of the classifier's test clips of genre '{genre}'. "
                "It is not the table that the classifier was trained on: run fit_genrecnn again."
            )
        chosen.update(sorted(ids, key=lambda i: item_seed(seed, "tcav/class", i))[:most])
    return chosen
