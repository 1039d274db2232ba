"""Captions per hour and memory: the captions' engine beside transformers' `generate`, in one run.

    python benchmarks/captioner.py --model resources/mini/models/llama --batch 8 32
    python benchmarks/captioner.py --shape llama-3.1-8b --batch 16 32 64 --dtype bfloat16 \
        --quantization nf4 --train

Without a checkpoint, random weights of a shape serve: they hardly ever end a text, so all captions
are as long as allowed, the worst case. `generate` is asked prompt by prompt, and in batches of the
order in which prompts come; the engine, as the workflow does, in batches of like lengths with an
item's own random stream. Methods take turns; the medians of the turns are printed, and the median
of the ratios of each turn. Memory is estimated from the shape beside what was measured.
"""

import argparse
import json
import platform
import resource
import statistics
import sys
import time
from pathlib import Path

import bitsandbytes as bnb
import torch
import transformers
from peft import LoraConfig, get_peft_model
from torch import nn
from transformers import AutoModelForCausalLM, GenerationConfig, LlamaConfig

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "workflow/scripts"))

from conceptcaps import chatmodel, decoding, grammar, seeding
from conceptcaps.finetuning import LINEAR

ROOT = Path(__file__).resolve().parent.parent
SHAPES = {  # layers, width, inner width, heads, heads of keys and values, tokens, context
    "tiny": (2, 128, 256, 4, 2, 1024, 2048),
    "small": (8, 512, 1536, 8, 4, 8192, 2048),
    "llama-3.1-8b": (32, 4096, 14336, 32, 8, 128256, 131072),  # its published config.json
}
DATASET, PAIRS, EPOCHS = 21_433, 1_890, 5  # captions of the published set; the paper's training
NF4_BYTES = (4 + 8 / 64 + 32 / (64 * 256)) / 8  # a weight with its doubly quantised constants
LORA_RANK, LORA_ALPHA = 32, 8


def build(shape: str, *, dtype: torch.dtype, quantization: str, device: str):
    """Return random weights of a shape, made and quantised layer by layer on the device."""
    layers, width, inner, heads, groups, tokens, context = SHAPES[shape]
    config = LlamaConfig(
        vocab_size=tokens, hidden_size=width, intermediate_size=inner, num_hidden_layers=layers,
        num_attention_heads=heads, num_key_value_heads=groups, max_position_embeddings=context,
        tie_word_embeddings=False,
    )  # fmt: skip
    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(config, dtype=dtype)
    for name, module in list(model.named_modules()):
        if isinstance(module, nn.Linear) and name.rpartition(".")[2] in LINEAR:
            parent = model.get_submodule(name.rpartition(".")[0])
            size = module.out_features, module.in_features
            weight = torch.randn(size, dtype=dtype, device=device) * 0.02
            if quantization == "nf4":
                made = bnb.nn.Linear4bit(
                    size[1], size[0], bias=False, compute_dtype=dtype, compress_statistics=True,
                    quant_type="nf4", device="meta",
                )  # fmt: skip
                made.weight = bnb.nn.Params4bit(
                    weight.cpu(), requires_grad=False, quant_type="nf4", compress_statistics=True
                )
                made = made.to(device)
                made.support_avx512bf16_for_cpu = False  # see chatmodel.load
            else:
                made = nn.Linear(size[1], size[0], bias=False, device="meta")
                made.weight = nn.Parameter(weight, requires_grad=False)
            setattr(parent, name.rpartition(".")[2], made)
    for module in model.modules():
        for key, tensor in list(module._parameters.items()):
            if tensor is not None and tensor.is_meta:
                filled = torch.randn(tensor.shape, dtype=dtype, device=device) * 0.02
                ones = torch.ones_like(filled) if filled.dim() == 1 else filled  # norms
                module._parameters[key] = nn.Parameter(ones, requires_grad=False)
    rotary = type(model.model.rotary_emb)(config).to(device)  # its buffers were meta, too
    model.model.rotary_emb = rotary
    return model.eval()


def load(options):
    """Return the engine of the workflow around a checkpoint, or around random weights."""
    dtype = options.dtype
    prompts = str(ROOT / "resources/prompts/caption.yaml")
    name = options.model or str(ROOT / "resources/mini/models/llama")  # shapes borrow its tokens
    base = chatmodel.Base(name, None, options.quantization, dtype, prompts)
    spec = decoding.Spec("transformers", 1, options.new_tokens, 0.7, 0.9, 0.0)
    if options.model:
        return decoding.Transformers(base, None, spec)
    engine = object.__new__(decoding.Transformers)
    engine.base, engine.spec = base, spec
    engine.tokenizer = chatmodel.load_tokenizer(base)
    engine.model = build(
        options.shape, dtype=getattr(torch, dtype), quantization=options.quantization,
        device=options.device,
    )  # fmt: skip
    stop, pad = engine.tokenizer.eos_token_id, engine.tokenizer.pad_token_id
    engine.model.generation_config = GenerationConfig(eos_token_id=[stop], pad_token_id=pad)
    return engine


def ask(engine, count: int) -> list[list[dict]]:
    """Return the prompts of `count` tag sets."""
    prompts = chatmodel.read_prompts(engine.base.prompts)
    sets = (grammar.sample_tags(seeding.item_rng(0, "benchmark", str(k))) for k in range(count))
    return [
        chatmodel.messages(prompts, [tag for group in tags.values() for tag in group])
        for tags in sets
    ]


def plain(engine, chats, size: int) -> int:
    """Let `generate` answer in batches of the given order; return the number of tokens."""
    tokens = 0
    for start in range(0, len(chats), size):
        inputs = chatmodel.encode(engine.tokenizer, chats[start : start + size])
        inputs = inputs.to(engine.model.device)
        made = engine.model.generate(
            **inputs, do_sample=True, temperature=0.7, top_p=0.9, top_k=0,
            max_new_tokens=engine.spec.max_new_tokens,
        )  # fmt: skip
        stops = engine.model.generation_config.eos_token_id
        answers = made[:, inputs["input_ids"].shape[1] :].tolist()
        tokens += sum(decoding.read(engine.tokenizer, one, stops).n_tokens for one in answers)
    return tokens


def ours(engine, chats, size: int) -> int:
    """Let the engine answer as `captions` does, prompts of like lengths together."""
    order = sorted(range(len(chats)), key=lambda k: (len(chats[k][-1]["content"]), k))
    tokens = 0
    for start in range(0, len(order), size):
        batch = order[start : start + size]
        tokens += sum(one.n_tokens for one in engine.answer([chats[k] for k in batch], batch))
    return tokens


def train(engine, chats, *, size: int):
    """Return a function that takes one training step of LoRA on `size` rows, and its tokens."""
    model = get_peft_model(
        engine.model, LoraConfig(r=LORA_RANK, lora_alpha=LORA_ALPHA, target_modules=LINEAR)
    )
    if engine.model.device.type == "cuda":
        model.gradient_checkpointing_enable()
        model.enable_input_require_grads()
    model.train()
    weights = [p for p in model.parameters() if p.requires_grad]
    optimiser = torch.optim.AdamW(weights, lr=1e-4)
    inputs = chatmodel.encode(engine.tokenizer, chats[:size])["input_ids"].to(model.device)
    room = engine.spec.max_new_tokens
    answer = torch.randint(5, 500, (len(inputs), room), device=model.device)
    ids = torch.cat([inputs, answer], 1)
    labels = ids.clone()
    labels[:, : inputs.shape[1]] = -100

    def step() -> int:
        model(input_ids=ids, labels=labels).loss.backward()
        optimiser.step()
        optimiser.zero_grad()
        return ids.numel()

    return step


def estimate_gb(config, *, dtype: str, quantization: str, batch: int, tokens: int) -> dict:
    """Return the GPU memory in GB of writing captions and of training, from the shape.

    Weights: linear ones in NF4 or in `dtype`, all others in `dtype`. Writing adds keys and values
    of every token, and four float32 copies of a step's logits (sampling). Training with gradient
    checkpointing adds the adapter with gradient and two moments in float32, every layer's input,
    one layer's activations, and the logits with their gradient in float32.
    """
    size = 4 if dtype == "float32" else 2
    head = config.hidden_size // config.num_attention_heads
    kv = config.num_key_value_heads * head
    d, inner, layers = config.hidden_size, config.intermediate_size, config.num_hidden_layers
    shapes = [(d, d), (d, kv), (d, kv), (d, d), (d, inner), (d, inner), (inner, d)]
    linear = layers * sum(a * b for a, b in shapes)
    vocabulary = config.vocab_size * d * (1 if config.tie_word_embeddings else 2)
    weights = linear * (NF4_BYTES if quantization == "nf4" else size) + vocabulary * size
    cache = 2 * layers * kv * size * batch * tokens
    adapter = layers * LORA_RANK * sum(a + b for a, b in shapes)
    inputs = layers * batch * tokens * d * size
    inside = batch * tokens * (4 * d + 2 * kv + 4 * inner) * size
    logits = 3 * batch * tokens * config.vocab_size * 4
    return {
        "weights": weights / 1e9,
        "generate_captions": (weights + cache + 4 * batch * config.vocab_size * 4) / 1e9,
        "finetune_captioner": (weights + 16 * adapter + inputs + inside + logits) / 1e9,
    }


def measure(works: dict, *, turns: int, device: str) -> dict[str, list]:
    """Return {name: [(seconds, tokens, peak bytes), ...]}; the first turn warms up."""
    taken = {name: [] for name in works}
    for turn in range(turns + 1):
        for name, work in works.items():
            if device == "cuda":
                torch.cuda.synchronize()
                torch.cuda.reset_peak_memory_stats()
            started = time.perf_counter()
            tokens = work()
            if device == "cuda":
                torch.cuda.synchronize()
            peak = torch.cuda.max_memory_allocated() if device == "cuda" else 0
            if turn or not turns:
                taken[name].append((time.perf_counter() - started, tokens, peak))
    return taken


def report(engine, options, batch: int) -> list[dict]:
    """Measure one batch size and print a row a method."""
    chats = ask(engine, options.prompts)
    alone = chats[: options.alone]
    ways = {
        "generate, one by one": (lambda: plain(engine, alone, 1), len(alone)),
        "generate, in batches": (lambda: plain(engine, chats, batch), len(chats)),
        "engine": (lambda: ours(engine, chats, batch), len(chats)),
    }
    with torch.inference_mode():
        works = {name: work for name, (work, _) in ways.items()}
        taken = measure(works, turns=options.repeats, device=options.device)
    prompt = chatmodel.encode(engine.tokenizer, chats)["input_ids"].shape[1]
    guess = estimate_gb(
        engine.model.config, dtype=options.dtype, quantization=options.quantization, batch=batch,
        tokens=prompt + options.new_tokens,
    )  # fmt: skip
    rates = {name: [t / s for s, t, _ in runs] for name, runs in taken.items()}
    rows = []
    for name, runs in taken.items():
        each = statistics.median(s for s, *_ in runs) / ways[name][1]
        ratios = [a / b for a, b in zip(rates["engine"], rates[name], strict=True)]
        row = {
            "method": name, "batch": 1 if "one" in name else batch,
            "tokens_per_s": statistics.median(rates[name]), "captions_per_h": 3600 / each,
            "hours_for_dataset": DATASET * each / 3600,
            "peak_gb": max(peak for *_, peak in runs) / 1e9 or None,
            "estimate_gb": guess["generate_captions"],
            "engine_against_it": statistics.median(ratios),
        }  # fmt: skip
        rows.append(row)
        peak = f"{row['peak_gb']:8.2f}" if row["peak_gb"] else "       -"
        print(
            f"{name:22}{row['batch']:6}{row['tokens_per_s']:11.1f}{row['captions_per_h']:12.0f}"
            f"{row['hours_for_dataset']:12.2f}{peak}{row['estimate_gb']:10.2f}"
            f"{row['engine_against_it']:10.2f}x",
            flush=True,
        )
    return rows


def report_training(engine, options) -> dict:
    """Measure training steps and print them."""
    chats = ask(engine, options.train_batch)
    step = train(engine, chats, size=options.train_batch)
    runs = measure({"train": step}, turns=options.repeats, device=options.device)["train"]
    seconds, tokens = statistics.median(s for s, *_ in runs), runs[0][1]
    guess = estimate_gb(
        engine.model.config, dtype=options.dtype, quantization=options.quantization,
        batch=options.train_batch, tokens=tokens // options.train_batch,
    )  # fmt: skip
    row = {
        "batch": options.train_batch, "tokens_per_s": tokens / seconds,
        "hours_for_paper": PAIRS * EPOCHS * seconds / options.train_batch / 3600,
        "peak_gb": max(peak for *_, peak in runs) / 1e9 or None,
        "estimate_gb": guess["finetune_captioner"],
    }  # fmt: skip
    print(f"training, LoRA {LORA_RANK}: {json.dumps(row)}", flush=True)
    return row


def main() -> None:
    """Measure, print a table, write JSON."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", help="directory of a checkpoint; else --shape")
    parser.add_argument("--shape", choices=SHAPES, default="tiny")
    parser.add_argument("--batch", type=int, nargs="+", default=[8])
    parser.add_argument("--prompts", type=int, default=64, help="of a turn")
    parser.add_argument("--alone", type=int, default=8, help="of them, answered one by one")
    parser.add_argument("--new-tokens", type=int, default=160)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--dtype", choices=("float32", "bfloat16", "float16"), default="float32")
    parser.add_argument("--quantization", choices=("nf4", "none"), default="none")
    parser.add_argument("--train", action="store_true", help="measure training steps as well")
    parser.add_argument("--train-batch", type=int, default=4)
    parser.add_argument("--threads", type=int, default=1, help="on a CPU")
    parser.add_argument("--output", default="benchmark-captioner.json")
    options = parser.parse_args()
    options.device = "cuda" if torch.cuda.is_available() else "cpu"
    transformers.logging.set_verbosity_error()
    torch.set_num_threads(options.threads)
    torch.manual_seed(0)
    engine = load(options)
    print(
        f"{'method':22}{'batch':>6}{'tokens/s':>11}{'captions/h':>12}{'h for set':>12}"
        f"{'peak GB':>8}{'estimate':>10}{'engine':>11}"
    )
    rows = [row for batch in options.batch for row in report(engine, options, batch)]
    training = report_training(engine, options) if options.train else None
    device = torch.cuda.get_device_name() if options.device == "cuda" else platform.machine()
    resident = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6
    versions = {"torch": torch.__version__, "transformers": transformers.__version__}
    record = vars(options) | {"device_name": device, "peak_resident_gb": resident} | versions
    record |= {"rows": rows, "training": training}
    Path(options.output).write_text(json.dumps(record, indent=2) + "\n")
    print(f"peak resident memory {resident:.2f} GB; {options.output}")


if __name__ == "__main__":
    main()
