"""The chat language model behind the captioner: its prompts, its loading, its adapter."""

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
import yaml
from bitsandbytes.nn import Linear4bit
from peft import PeftModel
from safetensors import safe_open
from transformers import (
    AutoModelForCausalLM,
    AutoTokenizer,
    BitsAndBytesConfig,
    GenerationConfig,
)

from conceptcaps import io, results
from conceptcaps.errors import InputError

PROMPT_KEYS = ("system", "tagged", "untagged")  # of the project's own arms
INSTRUCTION_KEYS = ("system", "tagged")  # of an arm in a file of instructions
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


def identity(base: Base) -> dict:
    """Return all of a model that a text depends on, for the key of a sidecar.

    Of local files it has sizes and times: a base model has too many bytes to be hashed every time.
    """
    files = []
    if base.revision is None:
        found = (f for f in Path(base.model).glob("*") if f.is_file() and f.name[0] != ".")
        files = [(f.name, f.stat().st_size, f.stat().st_mtime_ns) for f in sorted(found)]
    return {
        "base": asdict(base),
        "files": files,
        "prompts": Path(base.prompts).read_text(),
        "versions": results.versions("torch", "transformers", "peft", "bitsandbytes"),
        "device": "cuda" if torch.cuda.is_available() else "cpu",
    }


@contextmanager
def memory(key: str, also: str = "") -> Iterator[None]:
    """Turn running out of memory, on a GPU or off it, into one message that names a setting.

    Args:
        key: the setting to lower.
        also: what else to do.

    Raises:
        InputError: memory ran out.
    """
    try:
        yield
    except RuntimeError as error:  # torch.OutOfMemoryError is one
        off_gpu = "can't allocate memory" in str(error)
        if not isinstance(error, torch.OutOfMemoryError) and not off_gpu:
            raise
        where = "main" if off_gpu else "GPU"
        raise InputError(
            f"{key}: the {where} memory is not enough ({str(error).splitlines()[0]}). Lower it"
            f"{' and ' + also if also else ''}; what is finished is kept."
        ) from error


def read_prompts(path: str | Path, arm: str | None = None) -> dict[str, str]:
    """Read the prompts: a file's own, or those of `arm` in a file that has them by arm.

    Raises:
        InputError: the arm or a key is missing, or 'tagged' has no place for {tags}.
    """
    try:
        prompts = yaml.safe_load(Path(path).read_text())
    except (OSError, yaml.YAMLError) as error:
        raise InputError(f"{path}: cannot be read as YAML ({error}).") from error
    where, keys = path, PROMPT_KEYS
    if arm is not None:
        if not isinstance(prompts, dict) or arm not in prompts:
            raise InputError(f"{path}: has no prompts of the arm '{arm}'. Add them under its name.")
        prompts, where, keys = prompts[arm], f"{path}, {arm}", INSTRUCTION_KEYS
    if not isinstance(prompts, dict) or set(prompts) != set(keys):
        raise InputError(f"{where}: must have exactly the keys {', '.join(keys)}.")
    if "{tags}" not in prompts["tagged"]:
        raise InputError(f"{where}: 'tagged' must contain {{tags}}, where the tags go.")
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
    tokenizer = load_tokenizer(base)
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
        eos_token_id=stop_tokens(model.generation_config, tokenizer),
        pad_token_id=tokenizer.pad_token_id,
    )
    if adapter is not None:
        model = _apply_adapter(model, base, Path(adapter))
    return model.eval(), tokenizer


def load_tokenizer(base: Base):
    """Load the tokenizer, which pads on the left.

    Raises:
        InputError: it cannot be loaded or has no chat template.
    """
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


def stop_tokens(settings: GenerationConfig, tokenizer) -> list[int]:
    """Return the tokens that end an answer: the model's own and the tokenizer's."""
    known = settings.eos_token_id
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
    check_adapter(base, adapter)
    model = PeftModel.from_pretrained(model, adapter)
    # Weights that the file does not have stay as they begin: at zero.
    _refuse_idle(adapter, {n: p for n, p in model.named_parameters() if "lora_B" in n})
    return model


def check_adapter(base: Base, adapter: str | Path) -> dict:
    """Check an adapter's files against a base and return its configuration.

    Raises:
        InputError: it belongs to another base, or it changes nothing.
    """
    config_file = Path(adapter) / "adapter_config.json"
    config = io.read_json(config_file)
    made_for = (config["base_model_name_or_path"], config["revision"])
    if made_for != (base.model, base.revision):
        raise InputError(
            f"{config_file}: the adapter was trained on {made_for[0]} (revision {made_for[1]}), "
            f"not on captioner.base {base.model} (revision {base.revision}). "
            "Fine-tune again, or name its base."
        )
    with safe_open(Path(adapter) / "adapter_model.safetensors", framework="pt") as weights:
        _refuse_idle(adapter, {n: weights.get_tensor(n) for n in weights.keys() if "lora_B" in n})  # noqa: SIM118
    return config


def _refuse_idle(adapter: str | Path, of_b: dict[str, torch.Tensor]) -> None:
    """Refuse an adapter with B = 0, where LoRA begins: it is the base model."""
    still = [name for name, matrix in of_b.items() if not matrix.any()]
    if still or not of_b:
        first = f"first: {still[0]}" if still else "it has none"
        raise InputError(
            f"{adapter}: the adapter changes nothing in {len(still)} layers ({first}). "
            "Fine-tune again; look at captioner.finetune.learning_rate and at the training log."
        )


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
