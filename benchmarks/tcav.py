"""How long TCAV takes and how often its tests err, at the true sizes of the classifier's layers.

    .venv/bin/python benchmarks/tcav.py [--seeds 20] [--threads 2]

Activations and gradients are synthetic, of the paper-scale classifier's conv4 (128 axes) and
bottleneck (256): noise with a falling spectrum, tags at random, gradients of a class around a
direction of its own. First the time of 30 concepts x 10 classes x 50 random sets once activations
are there; then, seed by seed, how many cells of concepts with random labels are found, and whether
the planted ones are. Prints JSON.
"""

import argparse
import json
import sys
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import yaml
from threadpoolctl import threadpool_limits

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "workflow/scripts"))

from conceptcaps import tcav
from conceptcaps.concepts import Concept

ROOT = Path(__file__).resolve().parent.parent
LAYERS = {"conv4": 128, "bottleneck": 256}
CLASSES, CLASS_CLIPS = 10, 20  # GTZAN at a test share of 0.2


def world(seed: int, *, clips: int, concepts: int) -> tuple[dict, dict, dict]:
    """Return activations, gradients and concepts as `tcav.test_concepts` takes them."""
    rng = np.random.default_rng(seed)
    activations, gradients = {}, {}
    for layer, width in LAYERS.items():
        turned, _ = np.linalg.qr(rng.normal(size=(width, width)))
        spectrum = np.arange(1, width + 1) ** -0.5
        activations[layer] = (rng.normal(size=(clips, width)) * spectrum) @ turned
        gradients[layer] = {
            f"class{k}": rng.normal(size=width)
            + rng.normal(size=(CLASS_CLIPS, width)) * rng.uniform(0.2, 1.0)
            for k in range(CLASSES)
        }
    shares = np.geomspace(0.006, 0.4, concepts)  # of the clips that carry a tag
    tags = {f"tag{k}": rng.random(clips) < share for k, share in enumerate(shares)}
    some = np.logical_or.reduce(list(tags.values()))
    chosen = {
        name: Concept("instrument", positive, rivals=some & ~positive)
        for name, positive in tags.items()
    }
    return activations, gradients, chosen


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--seeds", type=int, default=20)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--clips", type=int, default=21433)
    parser.add_argument("--concepts", type=int, default=30)
    asked = parser.parse_args()
    config = yaml.safe_load((ROOT / "config.yaml").read_text())["tcav"]
    spec = tcav.Spec(**config | {"layers": list(LAYERS)})
    with threadpool_limits(asked.threads):
        activations, gradients, concepts = world(0, clips=asked.clips, concepts=asked.concepts)
        started, worked = time.perf_counter(), time.process_time()
        rows = tcav.test_concepts(activations, gradients, concepts, spec=spec, seed=0)
        report = {
            "clips": asked.clips,
            "concepts": asked.concepts,
            "rows": len(rows),
            "random_sets": spec.random_sets,
            "threads": asked.threads,
            "wall_s": round(time.perf_counter() - started, 1),
            "cpu_s": round(time.process_time() - worked, 1),
            "random_labels": _found(rows, ""),
        }
        families = []
        for seed in range(asked.seeds):
            few = replace(spec, layers=["conv4"])
            activations, gradients, _ = world(seed, clips=2000, concepts=1)
            wide = {"tag": Concept("", np.random.default_rng(seed).random(2000) < 0.1)}
            rows = tcav.test_concepts(activations, gradients, wide, spec=few, seed=seed)
            families.append({name: _found(rows, name) for name in ("", "shuffled", "planted")})
    report["seeds"] = {
        name or "random_labels": {
            "cells": sum(family[name]["cells"] for family in families),
            "significant": sum(family[name]["significant"] for family in families),
            "p_below_0.05": sum(family[name]["p_below_0.05"] for family in families),
            "permutation_p_below_0.05": sum(family[name]["exchanged"] for family in families),
            "seeds_with_one": sum(family[name]["significant"] > 0 for family in families),
            "seeds_with_all": sum(
                family[name]["significant"] == family[name]["cells"] for family in families
            ),
        }
        for name in ("", "shuffled", "planted")
    }
    print(json.dumps(report, indent=2))


def _found(rows: list[dict], control: str) -> dict:
    family = [row for row in rows if row["control"] == control]
    return {
        "cells": len(family),
        "significant": sum(row["significant"] for row in family),
        "p_below_0.05": sum(row["p_value"] < 0.05 for row in family),
        "exchanged": sum(row["p_permutation"] < 0.05 for row in family),
    }


if __name__ == "__main__":
    main()
