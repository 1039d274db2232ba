"""The engines behind the captions."""

import importlib.util
import sys
from types import ModuleType, SimpleNamespace

import pytest
import tiny_models

from conceptcaps import chatmodel, decoding
from conceptcaps.errors import InputError

SPEC = decoding.Spec("vllm", 4, 12, 0.7, 0.9, 0.0)
CHATS = [[{"role": "user", "content": text}] for text in ("A jazz song.", "Rock")]


@pytest.mark.skipif(importlib.util.find_spec("vllm") is not None, reason="vllm is installed")
def test_vllm_says_how_to_install_it():
    with pytest.raises(InputError, match=r"vllm is not installed.*pip install vllm bitsandbytes"):
        decoding.engine(tiny_models.base(), None, SPEC)


class Library:
    """Stands in for vLLM, which needs CUDA: records what it is asked, answers with fixed tokens."""

    def __init__(self, **options):
        Library.options = options

    def generate(self, prompts, params, *, lora_request, use_tqdm):
        Library.asked = prompts, params, lora_request
        stop = params[0].stop_token_ids[0]
        said = [SimpleNamespace(token_ids=[40, 41, stop], finish_reason="stop"),
                SimpleNamespace(token_ids=[42] * 12, finish_reason="length")]  # fmt: skip
        return [SimpleNamespace(outputs=[one]) for one in said]


@pytest.fixture
def vllm(monkeypatch):
    library = ModuleType("vllm")
    library.LLM = Library
    library.SamplingParams = library.TokensPrompt = lambda **facts: SimpleNamespace(**facts)
    request = ModuleType("vllm.lora.request")
    request.LoRARequest = lambda *facts: facts
    for name, module in (("vllm", library), ("vllm.lora", ModuleType("vllm.lora")),
                         ("vllm.lora.request", request)):  # fmt: skip
        monkeypatch.setitem(sys.modules, name, module)


def test_vllm_is_asked_what_transformers_is_asked(vllm):
    """What can be seen of our side without a GPU: prompts, seeds, limits, reading of answers."""
    engine = decoding.engine(tiny_models.base(), None, SPEC)
    answers = engine.answer(CHATS, [7, 2**62])
    prompts, params, lora = Library.asked
    _, tokenizer = chatmodel.load(tiny_models.base())
    for chat, prompt in zip(CHATS, prompts, strict=True):
        own = chatmodel.encode(tokenizer, [chat])["input_ids"][0].tolist()
        assert prompt.prompt_token_ids == own
        assert own.count(tokenizer.bos_token_id) == 1
    assert [one.seed for one in params] == [7, 2**62]
    assert {(one.temperature, one.top_p, one.max_tokens) for one in params} == {(0.7, 0.9, 12)}
    assert params[0].stop_token_ids == [tokenizer.eos_token_id]
    assert lora is None and Library.options["quantization"] == "bitsandbytes"
    assert [(one.n_tokens, one.finished) for one in answers] == [(2, True), (12, False)]
    assert answers[0].text == tokenizer.decode([40, 41])


def test_vllm_refuses_prompts_without_room(vllm):
    engine = decoding.engine(tiny_models.base(), None, SPEC)
    with pytest.raises(InputError, match="max_new_tokens"):
        engine.answer([[{"role": "user", "content": "jazz " * 2000}]], [1])
