"""The record of a run: what it holds, what it does not, and that it is stable."""

import json
import shutil
import subprocess
from importlib.metadata import version

import pytest
import torch
import yaml

from conceptcaps import provenance

CONFIG = {
    "seed": 2026,
    "pathvars": {"results": "results"},
    "sources": {"musiccaps": {"kind": "hub", "path": "google/MusicCaps", "revision": "main"}},
    "captioner": {"base": {"model": "org/llama", "revision": "a" * 40}},
    "audio": {"model": "models/musicgen", "revision": None, "temperature": 1.2},
    "vae": {"presets": {"paper": {"learning_rate": 6.0e-5}}},
}


def record(folder, config=CONFIG):
    provenance.record(
        config=config,
        config_output=folder / "run/config.yaml",
        provenance_output=folder / "run/provenance.json",
    )
    return json.loads((folder / "run/provenance.json").read_text())


def test_the_config_reads_back_equal_and_sorted(tmp_path):
    record(tmp_path)
    text = (tmp_path / "run/config.yaml").read_text()
    assert yaml.safe_load(text) == CONFIG
    heads = [line for line in text.splitlines() if not line.startswith(" ")]
    assert heads == sorted(heads)


def test_it_names_versions_machine_and_seed(tmp_path):
    found = record(tmp_path)
    assert found["packages"]["torch"] == version("torch")
    assert found["packages"]["datasets"] == version("datasets")
    assert set(found["packages"]) == set(provenance.PACKAGES)
    assert len(found["gpus"]) == torch.cuda.device_count()
    assert found["seed"] == 2026
    assert found["python"].startswith("3.")


def test_equal_configs_give_equal_bytes_and_other_configs_other_runs(tmp_path):
    first = record(tmp_path / "a")
    turned = dict(reversed(list(CONFIG.items())))
    assert record(tmp_path / "b", turned) == first
    files = [(tmp_path / run / "run/provenance.json").read_bytes() for run in "ab"]
    assert files[0] == files[1]
    assert record(tmp_path / "c", CONFIG | {"seed": 1})["run_id"] != first["run_id"]


def test_models_come_with_revision_and_the_cached_commit(tmp_path, monkeypatch):
    commit = "b" * 40
    references = tmp_path / "hub/datasets--google--MusicCaps/refs"
    references.mkdir(parents=True)
    (references / "main").write_text(commit)
    (tmp_path / "hub/models--org--llama/snapshots" / ("a" * 40)).mkdir(parents=True)
    monkeypatch.setattr(provenance, "HF_HUB_CACHE", str(tmp_path / "hub"))
    models = record(tmp_path)["models"]
    assert set(models) == {"sources.musiccaps", "captioner.base", "audio"}
    assert models["sources.musiccaps"]["resolved_commit"] == commit
    assert models["sources.musiccaps"]["type"] == "dataset"
    assert models["captioner.base"]["resolved_commit"] == "a" * 40
    local = {"id": "models/musicgen", "revision": None, "type": "model", "resolved_commit": None}
    assert models["audio"] == local


def test_a_revision_that_is_not_cached_is_null(tmp_path, monkeypatch):
    monkeypatch.setattr(provenance, "HF_HUB_CACHE", str(tmp_path / "hub"))
    assert record(tmp_path)["models"]["captioner.base"]["resolved_commit"] is None


def test_nothing_of_the_environment_is_recorded(tmp_path, monkeypatch):
    monkeypatch.setenv("HF_TOKEN", "planted-value-4711")
    record(tmp_path)
    written = "".join(path.read_text() for path in (tmp_path / "run").iterdir())
    assert "planted-value-4711" not in written


@pytest.mark.skipif(not shutil.which("git"), reason="needs git")
def test_commit_and_dirty_flag(tmp_path):
    def git(*arguments):
        who = ["-c", "user.name=t", "-c", "user.email=t@example.org"]
        command = ["git", "-C", tmp_path, *who, *arguments]
        return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()

    assert provenance._code(tmp_path) == {"commit": None, "dirty": None}  # no repository
    git("init")
    assert provenance._code(tmp_path) == {"commit": None, "dirty": None}  # no commit
    (tmp_path / "file").write_text("1")
    git("add", ".")
    git("commit", "-m", "one")
    head = git("rev-parse", "HEAD")
    assert provenance._code(tmp_path) == {"commit": head, "dirty": False}
    (tmp_path / "file").write_text("2")
    assert provenance._code(tmp_path) == {"commit": head, "dirty": True}


def test_without_git_the_commit_is_null(tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    assert record(tmp_path)["code"] == {"commit": None, "dirty": None}
