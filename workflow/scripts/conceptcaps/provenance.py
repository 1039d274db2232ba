"""The record of a run: merged config, code commit, versions, machine, models, seed."""

import hashlib
import json
import platform
import shutil
import subprocess
from collections.abc import Iterator
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import torch
import yaml
from huggingface_hub.constants import HF_HUB_CACHE
from huggingface_hub.file_download import repo_folder_name

from conceptcaps.io import atomic, write_json

PACKAGES = (  # the direct dependencies; tests/test_envs.py compares them with what is imported
    "accelerate",
    "audiocraft",
    "bert-score",
    "bitsandbytes",
    "captum",
    "datasets",
    "faiss-cpu",
    "ftfy",
    "huggingface_hub",
    "laion-clap",
    "Jinja2",
    "librosa",
    "matplotlib",
    "mlcroissant",
    "nltk",
    "numpy",
    "peft",
    "pillow",
    "pyarrow",
    "PyYAML",
    "rouge_score",
    "sacrebleu",
    "safetensors",
    "scikit-learn",
    "scipy",
    "snakemake",
    "soundfile",
    "soxr",
    "threadpoolctl",
    "tokenizers",
    "torch",
    "tqdm",
    "transformers",
    "trl",
    "yt-dlp",
)


def record(*, config: dict, config_output, provenance_output) -> None:
    """Write the merged config as YAML, and what else decides the results as JSON.

    `run_id` is a hash of the config, the commit and whether the tree differs from it. Nothing here
    is taken from the environment's variables; there is no time stamp, so that an unchanged run
    writes unchanged bytes.
    """
    code = _code(Path(__file__).resolve().parent)
    identity = json.dumps([config, code], sort_keys=True)
    with atomic(config_output) as temporary:
        temporary.write_text(yaml.safe_dump(config, sort_keys=True, allow_unicode=True))
    write_json(
        provenance_output,
        {
            "run_id": hashlib.sha256(identity.encode()).hexdigest()[:16],
            "code": code,
            "python": platform.python_version(),
            "platform": platform.platform(),
            "packages": {name: _version(name) for name in PACKAGES},
            "gpus": [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())],
            "cuda": torch.version.cuda,
            "models": dict(_models(config)),
            "seed": config["seed"],
        },
    )


def _code(directory: Path) -> dict:
    """Return the commit of the code and whether files differ from it; null without git."""
    commit = _git(directory, "rev-parse", "--verify", "HEAD")
    changes = _git(directory, "status", "--porcelain") if commit else None
    return {"commit": commit, "dirty": None if changes is None else bool(changes)}


def _git(directory: Path, *arguments: str) -> str | None:
    if not shutil.which("git"):
        return None
    done = subprocess.run(["git", "-C", directory, *arguments], capture_output=True, text=True)
    return done.stdout.strip() if done.returncode == 0 else None


def _version(package: str) -> str | None:
    """Return the installed version; None where this rule's environment lacks the package."""
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def _models(section: dict, path: str = "") -> Iterator[tuple[str, dict]]:
    """Yield (config path, record) of every entry that names a model or data set and a revision."""
    if "revision" in section:
        repo_type = "model" if "model" in section else "dataset"
        name, revision = section.get("model", section.get("path")), section["revision"]
        resolved = (
            resolved_commit(name, revision, repo_type=repo_type) if name and revision else None
        )
        yield (
            path,
            {"id": name, "revision": revision, "type": repo_type, "resolved_commit": resolved},
        )
    for key, value in section.items():
        if isinstance(value, dict):
            yield from _models(value, f"{path}.{key}".lstrip("."))


def resolved_commit(repo_id: str, revision: str, *, repo_type: str) -> str | None:
    """Return the commit that a hub revision stands for in the local hub cache, None if absent."""
    repo = Path(HF_HUB_CACHE) / repo_folder_name(repo_id=repo_id, repo_type=repo_type)
    reference = repo / "refs" / revision
    if reference.is_file():
        return reference.read_text().strip()
    return revision if (repo / "snapshots" / revision).is_dir() else None
