"""Clips per second: embedding files here beside laion_clap's own file-list call, in pairs.

    export HF_HOME=DIR PYTHONPATH=workflow/scripts     # a hub cache of its own
    python tests/laion_checkpoints.py DIR              # once: random weights, the hub cache's files
    python benchmarks/clap.py --model DIR --checkpoint music.pt

All embed the same files with the same weights: 10 s, stereo, 44.1 kHz, so that laion_clap's random
crop, of the 480,001 samples that librosa makes, starts at the first or second; so their vectors
differ by about 1e-4, which is printed. Each has a process of
its own, set up as its users have it: laion_clap's as its README calls it, once more inside
torch.no_grad(), and ours as a rule's job. They take turns; ratios are of the same turn, and their
median is printed. The bar is 1.5.
"""

import argparse
import json
import multiprocessing
import statistics
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import soundfile as sf
import torch

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "workflow/scripts"))

from conceptcaps import allocator, embedders, embeddings

SECONDS, RATE = 10, 44_100
METHODS = ("laion_clap", "laion_clap, no_grad", "conceptcaps")


def write_clips(folder: Path, count: int) -> list[Path]:
    """Write clips of noise that changes over time, as FLAC."""
    paths = []
    for k in range(count):
        rng = np.random.default_rng(k)
        level = np.repeat(rng.uniform(0.05, 0.3, SECONDS * 4), RATE // 4)[:, None]
        paths.append(folder / f"{k:04d}.flac")
        sf.write(paths[-1], level * rng.standard_normal((SECONDS * RATE, 2)), RATE)
    return paths


def serve(method: str, options: argparse.Namespace, pipe) -> None:
    """Load the model; then answer lists of files with (vectors, wall seconds, CPU seconds)."""
    torch.set_num_threads(options.threads)
    embed = _ours(options) if method == "conceptcaps" else _theirs(options, method)
    pipe.send("ready")
    while files := pipe.recv():
        started, worked = time.perf_counter(), time.process_time()
        vectors = embed(files)
        pipe.send((vectors, time.perf_counter() - started, time.process_time() - worked))


def _ours(options: argparse.Namespace):
    allocator.keep_freed()  # as `runlog.capture` does for every job
    embedder = embedders.LaionClap(
        model=options.model,
        revision=None,
        checkpoint=options.checkpoint,
        architecture=options.architecture,
    )
    sizes = {"window_s": SECONDS, "batch_size": 32}
    return lambda files: np.concatenate(
        embeddings.embed_whole(embedder, ((str(p), p) for p in files), where="", **sizes)
    )


def _theirs(options: argparse.Namespace, method: str):
    import laion_clap

    module = laion_clap.CLAP_Module(enable_fusion=False, amodel=options.architecture)
    weights = embedders.read_weights(Path(options.model) / options.checkpoint)
    weights.pop("text_branch.embeddings.position_ids", None)
    module.model.load_state_dict(weights)

    def embed(files: list[Path]) -> np.ndarray:
        with torch.set_grad_enabled("no_grad" not in method):
            return module.get_audio_embedding_from_filelist([str(path) for path in files])

    return embed


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
    spawn, servers = multiprocessing.get_context("spawn"), {}
    for method in METHODS:
        servers[method], far = spawn.Pipe()
        spawn.Process(target=serve, args=(method, options, far), daemon=True).start()
        far.close()  # else this process would wait for ever for one that failed
        servers[method].recv()
    wall, cpu = ({method: [] for method in METHODS} for _ in range(2))
    difference = 0.0
    with tempfile.TemporaryDirectory() as folder:
        files = write_clips(Path(folder), options.clips)
        for turn in range(options.turns + 1):  # the first warms up
            vectors = {}
            for method, pipe in servers.items():
                pipe.send(files if turn else files[:4])
                vectors[method], seconds, worked = pipe.recv()
                if turn:
                    wall[method].append(seconds)
                    cpu[method].append(worked)
            gap = np.abs(vectors["conceptcaps"] - vectors["laion_clap"]).max()
            difference = max(difference, float(gap))
            if turn:
                print({method: round(wall[method][-1], 2) for method in METHODS}, flush=True)
    for pipe in servers.values():
        pipe.send(None)
    record = vars(options) | {
        "wall_s": wall,
        "cpu_s": cpu,
        "median_ratio": _ratios(wall),
        "median_ratio_of_cpu": _ratios(cpu),
        "clips_per_s": options.clips / statistics.median(wall["conceptcaps"]),
        "largest_difference": difference,
        "torch": torch.__version__,
    }
    print(json.dumps({key: record[key] for key in list(record)[-5:]}, indent=2))
    Path(options.output).write_text(json.dumps(record, indent=2) + "\n")


def _ratios(seconds: dict[str, list[float]]) -> dict[str, float]:
    return {
        method: statistics.median(np.divide(seconds[method], seconds["conceptcaps"]).tolist())
        for method in METHODS
    }


if __name__ == "__main__":
    main()
