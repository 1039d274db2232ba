"""Clips per second: embedding files here beside laion_clap's own file-list call, in pairs.

    python tests/laion_checkpoints.py DIR     # once: random weights, and a hub cache of its own
    HF_HUB_CACHE=DIR/hub python benchmarks/clap.py --model DIR --checkpoint music.pt

Both embed the same files with the same weights: 10 s, stereo, 44.1 kHz, so that laion_clap's random
crop is the whole clip, and both must give the same vectors. They take turns; ratios are of the same
turn, and their median is printed. The bar is 1.5.
"""

import argparse
import json
import statistics
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import soundfile as sf
import torch

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "workflow/scripts"))

from conceptcaps import embedders, embeddings

SECONDS, RATE = 10, 44_100


def write_clips(folder: Path, count: int) -> list[Path]:
    """Write clips of noise that changes over time, as FLAC."""
    paths = []
    for k in range(count):
        rng = np.random.default_rng(k)
        level = np.repeat(rng.uniform(0.05, 0.3, SECONDS * 4), RATE // 4)[:, None]
        paths.append(folder / f"{k:04d}.flac")
        sf.write(paths[-1], level * rng.standard_normal((SECONDS * RATE, 2)), RATE)
    return paths


def main() -> None:
    """Measure, print, write JSON."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", required=True, help="directory of the checkpoint")
    parser.add_argument("--checkpoint", required=True)
    parser.add_argument("--architecture", default="HTSAT-tiny")
    parser.add_argument("--clips", type=int, default=32)
    parser.add_argument("--turns", type=int, default=5)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--output", default="benchmark-clap.json")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    ours = embedders.LaionClap(
        model=options.model,
        revision=None,
        checkpoint=options.checkpoint,
        architecture=options.architecture,
    )
    import laion_clap

    theirs = laion_clap.CLAP_Module(enable_fusion=False, amodel=options.architecture)
    weights = embedders.read_weights(Path(options.model) / options.checkpoint)
    weights.pop("text_branch.embeddings.position_ids", None)
    theirs.model.load_state_dict(weights)
    times, difference = {"laion_clap": [], "conceptcaps": []}, 0.0
    with tempfile.TemporaryDirectory() as folder:
        files = write_clips(Path(folder), options.clips)
        for turn in range(options.turns + 1):  # the first warms up
            part = files if turn else files[:4]
            started = time.perf_counter()
            with torch.no_grad():
                expected = theirs.get_audio_embedding_from_filelist([str(path) for path in part])
            between = time.perf_counter()
            clips = ((path.name, path) for path in part)
            sizes = {"window_s": SECONDS, "batch_size": 32}
            found = embeddings.embed_whole(ours, clips, where=folder, **sizes)
            ended = time.perf_counter()
            difference = max(difference, float(np.abs(np.concatenate(found) - expected).max()))
            if turn:
                times["laion_clap"].append(between - started)
                times["conceptcaps"].append(ended - between)
                print({name: round(seconds[-1], 2) for name, seconds in times.items()}, flush=True)
    ratios = [a / b for a, b in zip(times["laion_clap"], times["conceptcaps"], strict=True)]
    record = vars(options) | {
        "seconds": times,
        "ratios": ratios,
        "median_ratio": statistics.median(ratios),
        "clips_per_s": options.clips / statistics.median(times["conceptcaps"]),
        "largest_difference": difference,
        "torch": torch.__version__,
    }
    print(json.dumps({key: record[key] for key in list(record)[-5:]}, indent=2))
    Path(options.output).write_text(json.dumps(record, indent=2) + "\n")


if __name__ == "__main__":
    main()
