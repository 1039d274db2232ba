import math
import shutil
from pathlib import Path

import pytest
import tiny_models
import torch
from bitsandbytes.nn import Linear4bit
from transformers import AutoTokenizer

from conceptcaps import captioner, chatmodel, io
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
    min_logit_difference=1e-3,
)


def changed(**changes):
    return captioner.Finetune(**{**vars(SPEC), **changes})


def run_finetune(directory, spec, **of_base):
    captioner.finetune(
        pairs=tiny_models.write_pairs(directory / "pairs.parquet"),
        base=tiny_models.base(**of_base),
        spec=spec,
        seed=1,
        adapter=directory / "adapter",
        metrics=directory / "metrics.json",
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
        scratch=tmp_path / "scratch",
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


def test_an_untrained_adapter_is_refused(tmp_path):
    with pytest.raises(InputError, match="changes nothing"):
        run_finetune(tmp_path, changed(learning_rate=0.0, epochs=1, batch_size=16))
    assert not (tmp_path / "adapter").exists()
    assert not (tmp_path / "metrics.json").exists()


def test_an_adapter_that_hardly_moves_is_refused(tmp_path):
    with pytest.raises(InputError, match="min_logit_difference"):
        run_finetune(tmp_path, changed(min_logit_difference=1e6, epochs=1, batch_size=16))
    assert [p.name for p in tmp_path.iterdir()] == ["pairs.parquet"]


def test_prompts_without_room_for_a_caption_are_refused(tmp_path):
    with pytest.raises(InputError, match=r"no room for a caption behind \d+ of 28"):
        run_finetune(tmp_path, changed(max_length_tokens=30))


def test_a_loss_that_is_no_number_stops_with_its_step(tmp_path):
    with pytest.raises(InputError, match=r"loss became (nan|inf) at step \d+"):
        run_finetune(tmp_path, changed(learning_rate=1e30, warmup_share=0.0))


def test_an_adapter_of_another_base_is_refused(trained, tmp_path):
    other = shutil.copytree(tiny_models.llama(), tmp_path / "other")
    with pytest.raises(InputError, match="was trained on"):
        chatmodel.load(tiny_models.base(model=str(other)), trained / "adapter")


def test_a_missing_model_says_what_to_do():
    with pytest.raises(InputError, match=r"captioner\.base\.model.*licence.*HF_TOKEN"):
        chatmodel.load(tiny_models.base(model="nobody/no-such-model", revision="main"))


def test_a_tokenizer_without_chat_template_is_refused(tmp_path):
    copy = shutil.copytree(tiny_models.llama(), tmp_path / "plain")
    tokenizer = AutoTokenizer.from_pretrained(copy)
    tokenizer.chat_template = None
    (copy / "chat_template.jinja").unlink(missing_ok=True)
    tokenizer.save_pretrained(copy)
    with pytest.raises(InputError, match="no chat template"):
        chatmodel.load(tiny_models.base(model=str(copy)))


def test_prompts_are_checked(tmp_path):
    file = tmp_path / "prompts.yaml"
    file.write_text("system: a\ntagged: no place\nuntagged: b\n")
    with pytest.raises(InputError, match=r"\{tags\}"):
        chatmodel.read_prompts(file)
    file.write_text("system: a\n")
    with pytest.raises(InputError, match="exactly the keys"):
        chatmodel.read_prompts(file)


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
