"""What the training of a small model leaves behind: float16 weights, a record, a card."""

import re

import numpy as np
import pytest
import tiny_models
import torch
import yaml
from safetensors import safe_open
from transformers import AutoModelForCausalLM, AutoModelForMaskedLM, AutoTokenizer

from conceptcaps import mini_training
from conceptcaps.io import read_json

MODELS = {
    "llama": (AutoModelForCausalLM, "heldout_loss"),
    "gpt2": (AutoModelForCausalLM, "heldout_loss"),
    "roberta": (AutoModelForMaskedLM, "heldout_masked_loss"),
}


@pytest.mark.parametrize("name", MODELS)
def test_a_text_model_is_stored_in_float16_and_computes_in_float32(name):
    folder = getattr(tiny_models, name)()
    with safe_open(f"{folder}/model.safetensors", "pt") as file:
        assert {file.get_tensor(key).dtype for key in file.keys()} == {torch.float16}  # noqa: SIM118
    model = MODELS[name][0].from_pretrained(folder, dtype=torch.float32).eval()
    text = "A slow tempo jazz piece with piano."
    ids = AutoTokenizer.from_pretrained(folder)(text, return_tensors="pt").input_ids
    with torch.no_grad():
        logits = model(ids).logits
    assert logits.dtype == torch.float32 and logits.isfinite().all()


@pytest.mark.parametrize("name", MODELS)
def test_logits_survive_float16(name, tmp_path):
    model = MODELS[name][0].from_pretrained(getattr(tiny_models, name)(), dtype=torch.float32)
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for weight in model.parameters():  # off the grid of float16
            weight.mul_(1 + 1e-4 * torch.rand(weight.shape, generator=generator))
    save(model, tmp_path / name)
    assert {p.dtype for p in model.parameters()} == {torch.float32}  # the caller's stays as it is
    again = type(model).from_pretrained(tmp_path / name, dtype=torch.float32).eval()
    ids = torch.arange(20, 60)[None]
    with torch.no_grad():
        before, after = model.eval()(ids).logits, again(ids).logits
    assert not torch.equal(before, after)
    assert (before - after).abs().max() < 0.01 * before.std()


def save(model, output):
    mini_training.save(
        model,
        None,
        output,
        name="tiny",
        summary="A model of the tests",
        spec={"steps": 3},
        losses=[3.0, 2.0, 1.0],
        started=0.0,
        seed=7,
        quality={"auc": 0.98765, "loss": np.float64(1.5)},
    )


def test_record_and_card(tmp_path):
    model = AutoModelForMaskedLM.from_pretrained(tiny_models.roberta(), dtype=torch.float32)
    save(model, tmp_path / "tiny")
    record = read_json(tmp_path / "tiny/training.json")
    assert record.pop("minutes") > 0
    assert record == {
        "seed": 7,
        "steps": 3,
        "loss_first": 3.0,
        "loss_last": 1.0,
        "parameters": model.num_parameters(),
        "spec": {"steps": 3},
        "quality": {"auc": 0.98765, "loss": 1.5},
    }
    card = (tmp_path / "tiny/README.md").read_text()
    _, matter, body = card.split("---\n", 2)
    assert yaml.safe_load(matter) == {"license": "mit", "library_name": "transformers"}
    assert "A model of the tests." in body and "| `auc` | 0.9877 |" in body
    assert "Seed 7, 3 steps," in body and f"{model.num_parameters():,} parameters" in body
    assert re.search(r"^snakemake --workflow-profile mini train_mini_tiny$", body, re.MULTILINE)


@pytest.mark.parametrize("name", MODELS)
def test_a_text_model_knows_its_loss_on_other_captions(name):
    folder = getattr(tiny_models, name)()
    quality = read_json(f"{folder}/training.json")["quality"]
    assert list(quality) == [MODELS[name][1]]
    loss = quality[MODELS[name][1]]
    first = read_json(f"{folder}/training.json")["loss_first"]
    assert 0 < loss < first + 0.5
