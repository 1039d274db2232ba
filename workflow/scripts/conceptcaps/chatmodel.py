"""The chat language model behind the captioner: its prompts, its loading, its adapter."""

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import torch
import yaml
from bitsandbytes.nn import Linear4bit
from peft import PeftModel
from transformers import (
    AutoModelForCausalLM,
    AutoTokenizer,
    BitsAndBytesConfig,
    GenerationConfig,
)

from conceptcaps import io
from conceptcaps.errors import InputError

PROMPT_KEYS = ("system", "tagged", "untagged")
# Llama 3's template prints a date: its own default, given so that no prompt depends on the day.
TEMPLATE_DATE = "26 Jul 2024"


@dataclass(frozen=True)
class Base:
    """The language model before fine-tuning (config: captioner.base)."""

    model: str  # hub id or local directory
    revision: str | None  # None for a local directory
    quantization: str  # "nf4" (4 bit, double quantisation) or "none"
    dtype: str  # compute type: float32, bfloat16 or float16
    prompts: str  # YAML file with the prompts


def read_prompts(path: str | Path) -> dict[str, str]:
    """Read the prompts.

    Raises:
        InputError: a key is missing or 'tagged' has no place for {tags}.
    """
    try:
        prompts = yaml.safe_load(Path(path).read_text())
    except (OSError, yaml.YAMLError) as error:
        raise InputError(f"{path}: cannot be read as YAML ({error}).") from error
    if not isinstance(prompts, dict) or set(prompts) != set(PROMPT_KEYS):
        raise InputError(f"{path}: must have exactly the keys {', '.join(PROMPT_KEYS)}.")
    if "{tags}" not in prompts["tagged"]:
        raise InputError(f"{path}: 'tagged' must contain {{tags}}, where the tags go.")
    return prompts


def messages(prompts: dict[str, str], tags: Iterable[str] | None) -> list[dict[str, str]]:
    """Return the chat that asks for a caption of `tags`, or of anything when `tags` is None."""
    if tags is None:
        user = prompts["untagged"]
    else:
        user = prompts["tagged"].replace("{tags}", ", ".join(tags))
    return [{"role": "system", "content": prompts["system"]}, {"role": "user", "content": user}]


def load(base: Base, adapter: str | Path | None = None):
    """Load the model in evaluation mode, with an adapter where one is given, and its tokenizer.

    The tokenizer pads on the left, as generation needs it. Linear weights are quantised to NF4 with
    double quantisation where `base.quantization` says so; they compute in `base.dtype`. Of the
    model's own generation settings only the end tokens stay.

    Returns:
        (model, tokenizer)

    Raises:
        InputError: the model cannot be loaded, its tokenizer has no chat template, or the adapter
            belongs to another base or changes nothing.
    """
    tokenizer = _load_tokenizer(base)
    dtype = getattr(torch, base.dtype)
    quantization = None
    if base.quantization == "nf4":
        quantization = BitsAndBytesConfig(
            load_in_4bit=True,
            bnb_4bit_quant_type="nf4",
            bnb_4bit_use_double_quant=True,
            bnb_4bit_compute_dtype=dtype,
        )
    try:
        model = AutoModelForCausalLM.from_pretrained(
            base.model,
            revision=base.revision,
            dtype=dtype,
            quantization_config=quantization,
            device_map={"": "cuda" if torch.cuda.is_available() else "cpu"},
            use_safetensors=True,
        )
    except (OSError, ValueError) as error:
        raise _cannot_load(base, error) from error
    for module in model.modules():
        if isinstance(module, Linear4bit):
            # On some CPUs the first evaluation would repack the weights for bfloat16 inference: no
            # gradient passes them any more, and the compute type is not the one asked for.
            module.support_avx512bf16_for_cpu = False
    # Nothing but the ends of an answer is taken over: a penalty on repetition that a model brings
    # along would punish the prompt's own tag words.
    model.generation_config = GenerationConfig(
        eos_token_id=_stop_tokens(model, tokenizer), pad_token_id=tokenizer.pad_token_id
    )
    if adapter is not None:
        model = _apply_adapter(model, base, Path(adapter))
    return model.eval(), tokenizer


def _load_tokenizer(base: Base):
    try:
        tokenizer = AutoTokenizer.from_pretrained(
            base.model, revision=base.revision, padding_side="left"
        )
    except (OSError, ValueError) as error:
        raise _cannot_load(base, error) from error
    if tokenizer.chat_template is None:
        raise InputError(
            f"captioner.base.model: the tokenizer of {base.model} has no chat template. "
            "Name an instruction-tuned model."
        )
    if tokenizer.pad_token is None:
        tokenizer.pad_token = tokenizer.eos_token  # masked wherever it pads
    return tokenizer


def _stop_tokens(model, tokenizer) -> list[int]:
    known = model.generation_config.eos_token_id
    known = known if isinstance(known, list) else [known]
    return sorted({tokenizer.eos_token_id, *(token for token in known if token is not None)})


def _cannot_load(base: Base, error: Exception) -> InputError:
    reason = str(error).strip().splitlines()[0]
    return InputError(
        f"captioner.base.model: {base.model} (revision {base.revision}) cannot be loaded: {reason} "
        "Gated models (Llama 3.1: the Llama 3.1 Community License) need their licence accepted on "
        "the model's hub page and a token in HF_TOKEN. Without network, give a local directory "
        "with the model's files and 'revision: null'."
    )


def _apply_adapter(model, base: Base, adapter: Path) -> PeftModel:
    config_file = adapter / "adapter_config.json"
    config = io.read_json(config_file)
    made_for = (config["base_model_name_or_path"], config["revision"])
    if made_for != (base.model, base.revision):
        raise InputError(
            f"{config_file}: the adapter was trained on {made_for[0]} (revision {made_for[1]}), "
            f"not on captioner.base {base.model} (revision {base.revision}). "
            "Fine-tune again, or name its base."
        )
    model = PeftModel.from_pretrained(model, adapter)
    # LoRA's B starts at zero: weights not found in the file, or never trained, stay there.
    still = [n for n, p in model.named_parameters() if "lora_B" in n and not p.any()]
    if still:
        raise InputError(
            f"{adapter}: the adapter changes nothing in {len(still)} layers (first: {still[0]}). "
            "Fine-tune again; look at captioner.finetune.learning_rate and at the training log."
        )
    return model


def encode(tokenizer, chats: list[list[dict[str, str]]]):
    """Encode chats up to where the answer begins: input ids and mask [B, T], padded on the left.

    The template alone adds special tokens, so there is one beginning-of-text token, not two.
    """
    return tokenizer.apply_chat_template(
        chats,
        add_generation_prompt=True,
        padding=True,
        return_tensors="pt",
        return_dict=True,
        date_string=TEMPLATE_DATE,
    )
