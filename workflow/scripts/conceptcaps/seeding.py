"""Seeds per item, so that no result depends on shard size, batch size, order or a resume."""

import hashlib
import random

import numpy as np
import torch


def item_seed(global_seed: int, stage: str, item_id: str) -> int:
    """Return a 63-bit seed that depends on nothing but its three arguments."""
    digest = hashlib.sha256(f"{global_seed}\x1f{stage}\x1f{item_id}".encode()).digest()
    return int.from_bytes(digest[:8], "little") >> 1


def item_rng(global_seed: int, stage: str, item_id: str) -> np.random.Generator:
    """Return a numpy generator seeded by `item_seed`."""
    return np.random.default_rng(item_seed(global_seed, stage, item_id))


def seed_everything(seed: int) -> None:
    """Seed Python, numpy and torch: for training loops, which draw from the global generators."""
    random.seed(seed)
    np.random.seed(seed % 2**32)  # noqa: NPY002 - third-party trainers use the legacy generator
    torch.manual_seed(seed)
