import math
import os
import shutil
import signal
import time
from multiprocessing import get_context
from pathlib import Path

import pytest
import tiny_models
import torch
from bitsandbytes.nn import Linear4bit
from safetensors.torch import load_file
from transformers import AutoTokenizer

from conceptcaps import captioner, chatmodel, io, schemas
from conceptcaps.errors import InputError

SPEC = captioner.Finetune(
    lora_rank=4,
    lora_alpha=8,
    lora_dropout=0.0,
    max_pairs=None,
    epochs=2,
    batch_size=4,
    gradient_accumulation=1,
    learning_rate=1e-2,
    weight_decay=0.0,
    warmup_share=0.1,
    max_length_tokens=256,
    max_validation_pairs=None,
    evaluations=3,
    min_yield=1.0,
    min_logit_difference=1e-3,
)


def changed(**changes):
    return captioner.Finetune(**{**vars(SPEC), **changes})


def run_finetune(directory, spec, **of_base):
    tiny_models.write_pairs(directory / "pairs.parquet")
    finetune(directory, spec, **of_base)


def finetune(directory, spec, **of_base):
    captioner.finetune(
        pairs=directory / "pairs.parquet",
        base=tiny_models.base(**of_base),
        spec=spec,
        seed=1,
        adapter=directory / "adapter",
        metrics=directory / "metrics.json",
        history=directory / "history.parquet",
    )


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    directory = tmp_path_factory.mktemp("trained")
    run_finetune(directory, SPEC)
    return directory


@pytest.fixture(scope="module")
def prompts():
    return chatmodel.read_prompts(tiny_models.PROMPTS)


def test_loss_is_on_the_caption_alone(tmp_path, prompts):
    pairs = io.read_rows(tiny_models.write_pairs(tmp_path / "pairs.parquet"))
    model, tokenizer = chatmodel.load(tiny_models.base())
    rows = captioner.training_rows(pairs, prompts, epochs=1, seed=3)
    trainer = captioner.make_trainer(
        model=model,
        tokenizer=tokenizer,
        train=rows,
        validation=rows,
        base=tiny_models.base(),
        spec=SPEC,
        seed=3,
        sidecar=io.Sidecar(tmp_path / "adapter", key="", code=captioner.__file__),
    )
    batch = next(iter(trainer.get_train_dataloader()))  # what the model is given, collated
    for k, (ids, labels) in enumerate(zip(batch["input_ids"], batch["labels"], strict=True)):
        asked = chatmodel.encode(tokenizer, [rows[k]["prompt"]])["input_ids"][0]
        caption = rows[k]["completion"][0]["content"]
        assert ids[: len(asked)].tolist() == asked.tolist()
        assert (labels[: len(asked)] == -100).all()
        assert tokenizer.decode(labels[labels != -100]) == caption + tokenizer.eos_token
        assert (ids == tokenizer.bos_token_id).sum() == 1
    trainable = [p.dtype for p in trainer.model.parameters() if p.requires_grad]
    assert set(trainable) == {torch.float32}


def test_every_epoch_shows_every_pair_with_its_tags_in_another_order(tmp_path, prompts):
    pairs = io.read_rows(tiny_models.write_pairs(tmp_path / "pairs.parquet"))
    rows = captioner.training_rows(pairs, prompts, epochs=3, seed=3)
    n = len(pairs)
    captions = [row["completion"][0]["content"] for row in rows]
    epochs = [captions[k * n : (k + 1) * n] for k in range(3)]
    assert all(sorted(epoch) == sorted(p["caption"] for p in pairs) for epoch in epochs)
    assert epochs[0] != epochs[1]
    changing = []
    for pair in pairs:
        orders = [
            row["prompt"][1]["content"].split(": ")[1].split(", ")
            for row in rows
            if row["completion"][0]["content"] == pair["caption"]
        ]
        assert [sorted(order) for order in orders] == [sorted(pair["aspect_list"])] * 3
        changing.append(orders[0] != orders[1] or orders[1] != orders[2])
    assert sum(changing) > n / 2
    assert rows.to_list() == captioner.training_rows(pairs, prompts, epochs=3, seed=3).to_list()


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_compute_type_reaches_the_quantised_layers(dtype):
    model, _ = chatmodel.load(tiny_models.base(dtype=dtype))
    layers = [m for m in model.modules() if isinstance(m, Linear4bit)]
    assert len(layers) == 7 * model.config.num_hidden_layers
    assert {layer.compute_dtype for layer in layers} == {getattr(torch, dtype)}
    assert {layer.weight.quant_state.quant_type for layer in layers} == {"nf4"}
    assert all(layer.weight.quant_state.nested for layer in layers)


def test_a_look_at_the_model_does_not_cut_its_gradients(prompts):
    model, tokenizer = chatmodel.load(tiny_models.base())
    inputs = chatmodel.encode(tokenizer, [chatmodel.messages(prompts, ["jazz"])])

    def gradient():
        vectors = model.get_input_embeddings()(inputs["input_ids"]).detach().requires_grad_()
        model(inputs_embeds=vectors).logits[0, -1, :9].sum().backward()
        return vectors.grad

    before = gradient()
    with torch.no_grad():
        model(**inputs)  # bitsandbytes repacks the weights here, on CPUs with AVX512-BF16
    assert torch.equal(gradient(), before)


def test_encoding_pads_left_with_one_beginning(prompts):
    _, tokenizer = chatmodel.load(tiny_models.base())
    chats = [chatmodel.messages(prompts, tags) for tags in (["jazz"], ["rock", "fast tempo"], None)]
    encoded = chatmodel.encode(tokenizer, chats)
    assert (encoded["input_ids"] == tokenizer.bos_token_id).sum(1).tolist() == [1, 1, 1]
    assert encoded["attention_mask"][:, -1].tolist() == [1, 1, 1]
    assert encoded["attention_mask"][0, 0] == 0


def test_finetuning_lowers_the_loss_and_records_it(trained):
    record = io.read_json(trained / "metrics.json")["metrics"]
    values = {metric["name"]: metric["value"] for metric in record}
    assert values["eval_loss"] < values["eval_loss_before"] - 0.5
    assert values["adapter_logit_difference"] > SPEC.min_logit_difference
    recipe = record[0]["recipe"]
    assert recipe["model"] == tiny_models.llama()
    assert {"trl", "peft", "bitsandbytes"} <= set(recipe["versions"])
    names = {path.name for path in (trained / "adapter").iterdir()}
    assert names == {"adapter_config.json", "adapter_model.safetensors"}
    modules = io.read_json(trained / "adapter/adapter_config.json")["target_modules"]
    assert modules == sorted(modules)  # else equal runs differ in bytes


def test_the_saved_adapter_changes_the_logits(trained, prompts):
    model, tokenizer = chatmodel.load(tiny_models.base(), trained / "adapter")
    plain, _ = chatmodel.load(tiny_models.base())
    inputs = chatmodel.encode(tokenizer, [chatmodel.messages(prompts, ["jazz", "piano"])])
    with torch.no_grad():
        adapted, bare = model(**inputs).logits, plain(**inputs).logits
        with model.disable_adapter():
            assert torch.equal(model(**inputs).logits, bare)
    assert (adapted - bare).abs().max() > 0.1


def test_the_adapter_names_its_base_and_revision(trained):
    config = io.read_json(trained / "adapter/adapter_config.json")
    assert (config["base_model_name_or_path"], config["revision"]) == (tiny_models.llama(), None)


def test_the_log_has_every_step_and_the_best_look_is_kept(trained, prompts):
    log = io.read_rows(trained / "history.parquet")
    assert [row["step"] for row in log] == list(range(8))  # 14 pairs, 2 epochs, 4 rows a step
    assert log[-1]["epoch"] == 2
    assert log[0]["loss"] is None and all(row["loss"] > 0 for row in log[1:])
    looks = {row["step"]: row["validation_loss"] for row in log if row["validation_loss"]}
    assert list(looks) == [0, 3, 6, 7]
    record = {m["name"]: m["value"] for m in io.read_json(trained / "metrics.json")["metrics"]}
    step = int(record["best_step"])
    assert record["eval_loss"] == looks[step] == min(v for k, v in looks.items() if k)
    assert not (trained / "adapter.partial").exists()


def test_an_early_best_is_what_is_saved(tmp_path):
    """A learning rate that rises until it breaks the model: an earlier look is the best."""
    run_finetune(tmp_path, changed(learning_rate=0.5, warmup_share=1.0, evaluations=7))
    pairs = io.read_rows(tmp_path / "pairs.parquet")
    log = io.read_rows(tmp_path / "history.parquet")
    looks = {row["step"]: row["validation_loss"] for row in log[1:]}
    best = min(looks, key=looks.get)
    assert best < 7 and looks[7] > looks[best] + 0.01
    model, tokenizer = chatmodel.load(tiny_models.base(), tmp_path / "adapter")
    rows = captioner.training_rows(
        [row for row in pairs if row["split"] == "validation"],
        chatmodel.read_prompts(tiny_models.PROMPTS),
        epochs=1,
        seed=1,
    )
    losses = []
    for row in rows:
        asked = chatmodel.encode(tokenizer, [row["prompt"]])["input_ids"][0]
        answer = tokenizer(row["completion"][0]["content"], add_special_tokens=False)["input_ids"]
        ids = torch.tensor([*asked.tolist(), *answer, tokenizer.eos_token_id])[None]
        labels = ids.clone()
        labels[:, : len(asked)] = -100
        with torch.no_grad():
            losses.append((float(model(input_ids=ids, labels=labels).loss), len(answer) + 1))
    mean = sum(loss * n for loss, n in losses) / sum(n for _, n in losses)
    assert mean == pytest.approx(looks[best], rel=1e-4)


RESUME_TOLERANCE = 1e-6  # of the loss, relative; on a CPU in float32 it is 0


def test_training_that_was_killed_ends_with_the_same_loss_curve(tmp_path):
    spec = changed(lora_dropout=0.2)  # its random state must come back, too
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    whole.mkdir()
    killed.mkdir()
    run_finetune(whole, spec)
    model = {"model": tiny_models.llama()}
    child = get_context("spawn").Process(target=run_finetune, args=(killed, spec), kwargs=model)
    child.start()
    checkpoint = killed / "adapter.partial/checkpoint-3"
    while not (checkpoint / "whole").exists():
        assert child.is_alive()
        time.sleep(0.01)
    os.kill(child.pid, signal.SIGKILL)
    child.join()
    assert child.exitcode == -signal.SIGKILL and not (killed / "adapter").exists()
    half = checkpoint.with_name("checkpoint-6")  # as if killed while it was being written
    shutil.rmtree(half, ignore_errors=True)
    half.mkdir()
    (half / "trainer_state.json").write_text("{")
    run_finetune(killed, spec)
    for a, b in zip(*(io.read_rows(d / "history.parquet") for d in (whole, killed)), strict=True):
        for name in schemas.FINETUNING.names:  # None where there is no such figure
            assert a[name] == b[name] or a[name] == pytest.approx(b[name], rel=RESUME_TOLERANCE)
    file = "adapter/adapter_model.safetensors"
    a, b = (load_file(directory / file) for directory in (whole, killed))
    assert all(torch.allclose(a[name], b[name], rtol=1e-5, atol=1e-7) for name in a)
    assert not (killed / "adapter.partial").exists()


def test_checkpoints_of_other_settings_are_forgotten(tmp_path, capfd):
    with pytest.raises(InputError, match="min_logit_difference"):
        run_finetune(tmp_path, changed(min_logit_difference=1e6))
    spec = changed(learning_rate=5e-3)
    run_finetune(tmp_path, spec)
    assert "going on from" not in capfd.readouterr().out


def test_an_untrained_adapter_is_refused(tmp_path):
    with pytest.raises(InputError, match="changes nothing"):
        run_finetune(tmp_path, changed(learning_rate=0.0, epochs=1, batch_size=16))
    assert not (tmp_path / "adapter").exists()
    assert not (tmp_path / "metrics.json").exists()


def test_an_adapter_that_hardly_moves_is_refused(tmp_path):
    with pytest.raises(InputError, match="min_logit_difference"):
        run_finetune(tmp_path, changed(min_logit_difference=1e6, epochs=1, batch_size=16))
    made = {p.name for p in tmp_path.iterdir()}
    assert made == {"pairs.parquet", "adapter.partial", "adapter.lock"}  # ready for a lower bound


def test_prompts_without_room_for_a_caption_are_refused(tmp_path):
    with pytest.raises(InputError, match=r"28 of 28 training rows are longer than 30 tokens"):
        run_finetune(tmp_path, changed(max_length_tokens=30))


def test_a_caption_that_does_not_fit_is_named_or_left_out_but_not_cut(tmp_path):
    pairs = tiny_models.write_pairs(tmp_path / "pairs.parquet")
    rows = io.read_rows(pairs)
    rows[3]["caption"] = "And we hear a piano. " * 60
    io.write_table(pairs, rows, schemas.PAIRS)
    message = r"2 of 28 training rows.*first: pair pair003, \d+ tokens.*context: 512"
    with pytest.raises(InputError, match=message):
        finetune(tmp_path, SPEC)
    finetune(tmp_path, changed(min_yield=0.9))
    metrics = {m["name"]: m for m in io.read_json(tmp_path / "metrics.json")["metrics"]}
    assert metrics["train_loss"]["n"] == 26


def test_more_tokens_than_the_context_are_refused(tmp_path):
    with pytest.raises(InputError, match="beyond the model's context of 512 tokens"):
        run_finetune(tmp_path, changed(max_length_tokens=513))


def test_a_loss_that_is_no_number_stops_with_its_step(tmp_path):
    with pytest.raises(InputError, match=r"loss became (nan|inf) at step \d+"):
        run_finetune(tmp_path, changed(learning_rate=1e30, warmup_share=0.0))


def test_an_adapter_of_another_base_is_refused(trained, tmp_path):
    other = shutil.copytree(tiny_models.llama(), tmp_path / "other")
    with pytest.raises(InputError, match="was trained on"):
        chatmodel.load(tiny_models.base(model=str(other)), trained / "adapter")


def test_mini_llama_leaves_a_whole_folder():
    record = io.read_json(Path(tiny_models.llama()) / "training.json")
    assert record["steps"] == 40
    assert record["loss_last"] < record["loss_first"] - 1
    assert math.isclose(record["seed"], 0)
    assert AutoTokenizer.from_pretrained(tiny_models.llama()).model_max_length == 512


def test_a_part_of_the_pairs_is_drawn_by_seed():
    pairs = [{"id": str(k)} for k in range(50)]
    few = captioner._drawn(pairs, 10, seed=1)
    assert len(few) == 10 and few == sorted(few, key=pairs.index)
    assert few == captioner._drawn(pairs, 10, seed=1) != captioner._drawn(pairs, 10, seed=2)
    assert captioner._drawn(pairs, None, seed=1) == captioner._drawn(pairs, 50, seed=1) == pairs
