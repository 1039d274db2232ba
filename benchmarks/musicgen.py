"""Clips per hour: the engine beside transformers' generate, in pairs, in one run.

    python benchmarks/musicgen.py --model resources/mini/models/musicgen --batch 16 --seconds 4
    python benchmarks/musicgen.py --shape large --batch 16 64 --seconds 30 --dtype bfloat16

Needs torch, transformers and numpy; with `--audiocraft` that as well: its own loop over the same
weights. Without a checkpoint, random weights of a published shape serve: what they are changes the
speed in one way only, that on a CPU the engine reads half as much where they are float16's numbers
(`--float16-numbers`; the miniature's are). Methods take turns; ratios are of the same turn, and
their median is printed. The roofline is what reading the decoder's weights once a step, as the
engine holds them, and the keys and values of the length reached, would take at the copy bandwidth
of the same run.
`--shards 1 2 4` also plays so many batches at once with the engine, a process each.
"""

import argparse
import json
import math
import multiprocessing
import platform
import resource
import statistics
import sys
import time
from copy import deepcopy
from pathlib import Path

import torch
import transformers
from transformers import (
    EncodecConfig,
    MusicgenConfig,
    MusicgenDecoderConfig,
    MusicgenForConditionalGeneration,
    T5Config,
)

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "workflow/scripts"))

from conceptcaps.draws import Sampling
from conceptcaps.musicgen_engine import Engine

SHAPES = {  # layers, width, heads: Copet et al. 2023, section 3.1
    "small": (24, 1024, 16),
    "medium": (48, 1536, 24),
    "large": (48, 2048, 32),
}
DATASET = 21_433  # clips of the published set
THEIRS = ("eager", "sdpa", "static")  # transformers: two kinds of attention; sdpa, static cache
SAMPLING = Sampling(guidance_scale=3.3, temperature=1.0, top_k=50)
PROMPT_TOKENS = (14, 22, 30, 41)  # of the clips of a batch, in turn


def build(shape: str) -> MusicgenForConditionalGeneration:
    """Return random weights of a published shape, with T5-base and the 32 kHz codec."""
    layers, width, heads = SHAPES[shape]
    text = T5Config(d_model=768, d_ff=3072, num_layers=12, num_heads=12)
    codec = EncodecConfig(
        sampling_rate=32_000, num_filters=64, hidden_size=128, codebook_size=2048, codebook_dim=128,
        upsampling_ratios=[8, 5, 4, 4], target_bandwidths=[2.2], use_causal_conv=False,
    )  # fmt: skip
    decoder = MusicgenDecoderConfig(
        num_hidden_layers=layers, hidden_size=width, num_attention_heads=heads, ffn_dim=4 * width
    )
    config = MusicgenConfig(
        text_encoder=text.to_dict(), audio_encoder=codec.to_dict(), decoder=decoder.to_dict()
    )
    model = MusicgenForConditionalGeneration(config)
    model.generation_config.update(
        pad_token_id=2048, bos_token_id=2048, decoder_start_token_id=2048, max_length=1500
    )
    return model


def copy_bandwidth(device: str) -> float:
    """Return the bytes per second of reading and writing 256 MB, best of five."""
    source = torch.empty(2**26, device=device)
    target, times = torch.empty_like(source), []
    for _ in range(6):
        times.append(timed(lambda: target.copy_(source), device)[0])
    return 2 * source.nbytes / min(times[1:])


def timed(work, device: str):
    """Return seconds and the result of `work()`."""
    if device == "cuda":
        torch.cuda.synchronize()
    started = time.perf_counter()
    result = work()
    if device == "cuda":
        torch.cuda.synchronize()
    return time.perf_counter() - started, result


def roofline_s(engine: Engine, *, clips: int, frames: int, bandwidth: float) -> float:
    """Return the least seconds that reading weights and cache takes."""
    weights = engine.weights
    matrices = [
        getattr(layer, name).nbytes
        for layer in weights.layers
        for name in ("qkv", "out", "cross_q", "cross_out", "fc1", "fc2")
    ]
    steps = frames + engine.delay
    cache = clips * engine.cache_bytes(frames=frames) * (steps + 1) / 2  # half on average
    return (steps * (sum(matrices) + weights.heads.nbytes) + cache) / bandwidth


def frames_of(model, seconds: float) -> int:
    """Return the frames of a clip."""
    codec = model.config.audio_encoder
    return math.ceil(seconds * codec.sampling_rate / math.prod(codec.upsampling_ratios))


def random_prompts(model, clips: int) -> list[list[int]]:
    """Return token ids of a text for each clip."""
    generator = torch.Generator().manual_seed(0)
    size = model.config.text_encoder.vocab_size
    lengths = [PROMPT_TOKENS[i % len(PROMPT_TOKENS)] for i in range(clips)]
    return [torch.randint(3, size, (n,), generator=generator).tolist() for n in lengths]


def prompt_batch(model, clips: int, device: str) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the prompts as ids [B, N], padded, and their mask [B, N]."""
    prompts = random_prompts(model, clips)
    ids = torch.zeros(clips, max(map(len, prompts)), dtype=torch.long)
    mask = torch.zeros_like(ids)
    for row, prompt in enumerate(prompts):
        ids[row, : len(prompt)], mask[row, : len(prompt)] = torch.tensor(prompt), 1
    return ids.to(device), mask.to(device)


def methods(model, engine: Engine, *, clips: int, frames: int, device: str) -> dict:
    """Return {name: function that makes the waves of one batch}."""
    prompts = random_prompts(model, clips)
    ids, mask = prompt_batch(model, clips, device)

    def generate(attention: str, **cache):
        model.set_attn_implementation({"decoder": attention})
        return model.generate(
            **cache,
            input_ids=ids, attention_mask=mask, do_sample=True, top_k=SAMPLING.top_k,
            guidance_scale=SAMPLING.guidance_scale, max_new_tokens=frames + engine.delay,
        )  # fmt: skip

    def play():
        codes, _ = engine.compose(prompts, list(range(clips)), frames=frames, sampling=SAMPLING)
        return engine.decode(codes.cpu())

    return {
        "eager": lambda: generate("eager"),
        "sdpa": lambda: generate("sdpa"),
        "static": lambda: generate("sdpa", cache_implementation="static"),
        "engine": play,
    }


def audiocraft_method(model, engine: Engine, *, clips: int, frames: int, options):
    """Return a function that makes the waves as audiocraft 1.3 does; text states are given to it.

    Its text conditioner would read a published T5 by its name; here the model's own encoder reads
    the prompts once, outside of what is timed.
    """
    from audiocraft.models import builders
    from audiocraft.models.encodec import HFEncodecCompressionModel
    from audiocraft.modules.conditioners import ConditioningAttributes, ConditioningProvider
    from omegaconf import OmegaConf

    from conceptcaps.conversion import language_model

    settings, weights = language_model(model, text_encoder="given", duration_s=options.seconds)
    settings |= {"conditioners": {}, "device": options.device, "dtype": options.dtype}
    lm = builders.get_lm_model(OmegaConf.create(settings)).eval()
    kept = lm.state_dict().keys()
    lm.load_state_dict({name: value for name, value in weights.items() if name in kept})
    ids, mask = prompt_batch(model, clips, options.device)
    states = model.text_encoder(input_ids=ids, attention_mask=mask).last_hidden_state
    states = model.enc_to_dec_proj(states) * mask[..., None]
    both = torch.cat([states, torch.zeros_like(states)]).to(getattr(torch, options.dtype))

    class Given(ConditioningProvider):
        def tokenize(self, _):
            return {}

        def forward(self, _):
            return {"description": (both, torch.cat([mask] * 2))}

    lm.condition_provider = Given({}, device=options.device)
    codec = HFEncodecCompressionModel(model.audio_encoder)
    asked = [ConditioningAttributes(text={"description": "given"}) for _ in range(clips)]

    def play():
        codes = lm.generate(
            conditions=asked, max_gen_len=frames, use_sampling=True, temp=SAMPLING.temperature,
            top_k=SAMPLING.top_k, cfg_coef=SAMPLING.guidance_scale,
        )  # fmt: skip
        sides = [codes[:, side :: engine.channels] for side in range(engine.channels)]
        return torch.cat([codec.decode(side) for side in sides], dim=1)

    return play


def measure(model, engine: Engine, *, clips: int, options) -> list[dict]:
    """Return a row per method for one batch size."""
    frames = frames_of(model, options.seconds)
    ways = methods(model, engine, clips=clips, frames=frames, device=options.device)
    ways = {name: ways[name] for name in ways if name == "engine" or name in options.against}
    if options.audiocraft:
        ways["audiocraft"] = audiocraft_method(
            model, engine, clips=clips, frames=frames, options=options
        )
    times = {name: [] for name in ways}
    peaks = {}
    for turn in range(options.repeats + 1):  # the first warms up
        for name, work in ways.items():
            if options.device == "cuda":
                torch.cuda.reset_peak_memory_stats()
            seconds, _ = timed(work, options.device)
            if turn:
                times[name].append(seconds)
            if options.device == "cuda":
                peaks[name] = torch.cuda.max_memory_allocated()
    bandwidth = copy_bandwidth(options.device)
    least = roofline_s(engine, clips=clips, frames=frames, bandwidth=bandwidth)
    rows = []
    for name, taken in times.items():
        seconds = statistics.median(taken)
        row = {
            "method": name,
            "batch": clips,
            "seconds_a_batch": seconds,
            "steps_per_s": (frames + engine.delay) / seconds,
            "clips_per_h": 3600 * clips / seconds,
            "real_time_factor": clips * options.seconds / seconds,
            "share_of_roofline": least / seconds,
            "hours_for_dataset": DATASET * seconds / clips / 3600,
            "peak_gb": peaks.get(name, 0) / 1e9 or None,
            "copy_gb_per_s": bandwidth / 1e9,
        }
        ratios = [theirs / ours for theirs, ours in zip(taken, times["engine"], strict=True)]
        row["engine_against_it"] = statistics.median(ratios)
        rows.append(row)
        print(
            f"{name:12} {clips:5} {row['steps_per_s']:9.1f} {row['clips_per_h']:10.0f} "
            f"{row['real_time_factor']:9.2f} {100 * row['share_of_roofline']:8.1f} % "
            f"{row['hours_for_dataset']:9.2f} {row['engine_against_it']:8.2f}",
            flush=True,
        )
    return rows


def load(options):
    """Return the model to measure, float32, on the CPU."""
    torch.set_num_threads(options.threads)
    if options.model:
        model = MusicgenForConditionalGeneration.from_pretrained(options.model, dtype=torch.float32)
    else:
        model = build(options.shape)
    if options.float16_numbers:
        model.decoder.half().float()
    return model.eval()


def play_shard(options, clips: int, together, seconds) -> None:
    """Play one batch with the engine at the moment that all processes are ready."""
    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()
    model = load(options)
    engine = Engine(model, device=options.device, dtype=getattr(torch, options.dtype))
    frames = frames_of(model, options.seconds)
    play = methods(model, engine, clips=clips, frames=frames, device=options.device)["engine"]
    with torch.inference_mode():
        play()
        together.wait(timeout=900)  # broken when another process failed
        seconds.put(timed(play, options.device)[0])


def scale(options, *, clips: int) -> list[dict]:
    """Return a row for each number of shards that are played at once, a process each."""
    context = multiprocessing.get_context("spawn")
    rows = []
    for shards in options.shards:
        together, seconds = context.Barrier(shards), context.Queue()
        workers = [
            context.Process(target=play_shard, args=(options, clips, together, seconds))
            for _ in range(shards)
        ]
        for worker in workers:
            worker.start()
        for worker in workers:
            worker.join()
        if any(worker.exitcode for worker in workers):
            raise SystemExit(f"error: one of {shards} processes failed; what it said is above")
        slowest = max(seconds.get() for _ in range(shards))
        rate = 3600 * shards * clips / slowest
        rows.append({"shards": shards, "seconds": slowest, "clips_per_h": rate})
        gain = rate / rows[0]["clips_per_h"] / (shards / rows[0]["shards"])
        print(
            f"{shards} shards at once: {rate:.0f} clips/h, {DATASET / rate:.1f} h for {DATASET} "
            f"clips, {gain:.0%} of what as many alone would play",
            flush=True,
        )
    return rows


def main() -> None:
    """Measure, print a table, write JSON."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", help="directory of a checkpoint; else --shape")
    parser.add_argument("--shape", choices=SHAPES, default="small")
    parser.add_argument(
        "--float16-numbers", action="store_true", help="round the decoder's weights to them"
    )
    parser.add_argument("--batch", type=int, nargs="+", default=[2])
    parser.add_argument("--seconds", type=float, default=2.0, help="length of a clip")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--dtype", choices=("float32", "bfloat16", "float16"), default="float32")
    parser.add_argument("--threads", type=int, default=1, help="on a CPU")
    parser.add_argument(
        "--shards", type=int, nargs="+", default=[], help="as many processes at once, last batch"
    )
    parser.add_argument(
        "--against", choices=THEIRS, nargs="+", default=THEIRS, help="of their ways"
    )
    parser.add_argument("--audiocraft", action="store_true", help="measure audiocraft's loop, too")
    parser.add_argument("--output", default="benchmark-musicgen.json")
    options = parser.parse_args()
    options.device = "cuda" if torch.cuda.is_available() else "cpu"
    transformers.logging.set_verbosity_error()
    model = load(options)
    dtype = getattr(torch, options.dtype)
    engine = Engine(model, device=options.device, dtype=dtype)
    if dtype != torch.float32:  # transformers' own become half; the engine keeps float32
        engine.codec, engine.text_encoder = map(deepcopy, (engine.codec, engine.text_encoder))
    model.to(options.device, dtype)
    print(
        f"{'method':12} {'batch':>5} {'steps/s':>9} {'clips/h':>10} {'real time':>9} "
        f"{'roofline':>10} {'h for set':>9} {'engine x':>8}"
    )
    with torch.inference_mode():
        rows = [
            row
            for clips in options.batch
            for row in measure(model, engine, clips=clips, options=options)
        ]
    device = torch.cuda.get_device_name() if options.device == "cuda" else platform.machine()
    resident = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6
    versions = {"torch": torch.__version__, "transformers": transformers.__version__}
    record = vars(options) | {"device_name": device, "peak_resident_gb": resident} | versions
    record["scaling"] = scale(options, clips=options.batch[-1])
    Path(options.output).write_text(json.dumps(record | {"rows": rows}, indent=2) + "\n")


if __name__ == "__main__":
    main()
