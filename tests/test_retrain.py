"""The training rules, through the workflow: the smallest model, a few steps."""

import pytest
import torch
from conftest import check_out
from transformers import AutoModel, AutoTokenizer

from conceptcaps.io import read_json

pytestmark = [pytest.mark.pipeline, pytest.mark.long]
MINI = ("--workflow-profile", "mini")


def test_a_model_is_trained_anew_by_its_rule(tmp_path):
    run = check_out(tmp_path / "fresh")
    overlays = ["overlays/mini.yaml", "overlays/retrained.yaml"]
    few = "mini={gpt2: {steps: 40, batch_size: 8}}"
    run.snakemake("train_mini_gpt2", *MINI, "--configfile", *overlays, "--config", few)
    folder = run.results / "models/gpt2"
    record = read_json(folder / "training.json")
    assert record["steps"] == 40 and record["spec"]["batch_size"] == 8
    assert record["loss_last"] < record["loss_first"] - 1
    assert record["quality"]["heldout_loss"] < record["loss_first"] - 1
    assert "train_mini_gpt2" in (folder / "README.md").read_text()
    ids = AutoTokenizer.from_pretrained(folder)("piano", return_tensors="pt").input_ids
    states = AutoModel.from_pretrained(folder, dtype=torch.float32)(ids).last_hidden_state
    assert states.isfinite().all()
