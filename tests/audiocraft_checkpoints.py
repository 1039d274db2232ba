"""Convert small MusicGens to audiocraft's format and back, play both; prints findings as JSON.

Run by test_audiocraft.py in a process of its own, with a hub cache of its own: audiocraft takes
text encoder and codec from there, by name.
"""

import json
import shutil
import sys
from dataclasses import replace
from pathlib import Path
from string import ascii_lowercase

import tiny_models
import torch
import yaml
from transformers import MusicgenForConditionalGeneration, T5Tokenizer

from conceptcaps import conversion, musicgen
from conceptcaps.errors import InputError

torch.set_num_threads(1)
root = Path(sys.argv[1])


def repository(name: str) -> Path:
    folder = root / "hub" / ("models--" + name.replace("/", "--"))
    (folder / "refs").mkdir(parents=True)
    (folder / "refs/main").write_text("0" * 40)
    return folder / "snapshots" / ("0" * 40)


def save(model, name: str) -> None:
    model.save_pretrained(root / name)
    tokenizer.save_pretrained(root / name)


def convert(*arguments: str) -> None:
    """What the command does, with its arguments' defaults."""
    sys.argv = ["conversion", *map(str, arguments)]
    conversion.main()


pieces = [("<pad>", 0.0), ("</s>", 0.0), ("<unk>", 0.0), ("▁", -2.0)]
pieces += [(letter, -3.0) for letter in ascii_lowercase]
tokenizer = T5Tokenizer(vocab=pieces, extra_ids=0, model_max_length=64)
mono, stereo = (
    tiny_models.random_musicgen(channels=channels, text_width=512)  # T5-small's width
    for channels in (1, 2)
)
stereo.text_encoder, stereo.audio_encoder = mono.text_encoder, mono.audio_encoder
save(mono, "ours")
save(stereo, "ours-stereo")
for part, name in ((mono.text_encoder, "t5-small"), (mono.audio_encoder, "tiny/codec")):
    part.save_pretrained(repository(name))
tokenizer.save_pretrained(root / "hub/models--t5-small/snapshots" / ("0" * 40))
torch.manual_seed(1)
other = tiny_models.random_musicgen(text_width=512).text_encoder
torch.nn.init.normal_(other.shared.weight)
other.save_pretrained(repository("t5-base"))
NAMED = ["--text-encoder", "t5-small", "--codec", "tiny/codec"]
config = yaml.safe_load(Path("config.yaml").read_text())["audio"]
spec = replace(musicgen.Spec.of(config), revision=None, dtype="float32", duration_s=0.2, top_k=20)
texts = ["a slow jazz piece with piano", "jazz", "a fast metal song with drums", "metal"]
seeds = [11, 22, 33, 44]


def compare(model, kind: str) -> dict:
    """Convert a checkpoint there and back; play both formats."""
    ours, theirs, back = (root / (name + kind) for name in ("ours", "theirs", "back"))
    convert(ours, theirs, *NAMED)
    convert(theirs, back)
    before, after = model.state_dict(), MusicgenForConditionalGeneration.from_pretrained(back)
    found = {
        "round_trip": all(torch.equal(before[k], v) for k, v in after.state_dict().items()),
        "same_keys": before.keys() == after.state_dict().keys(),
        "start": after.generation_config.decoder_start_token_id,
        "channels": after.config.decoder.audio_channels,
    }
    engine = musicgen.load_generator(replace(spec, model=str(ours)))
    audiocraft = musicgen.load_generator(replace(spec, backend="audiocraft", model=str(theirs)))
    found["rate"] = [engine.sampling_rate_hz, audiocraft.sampling_rate_hz]
    found["frames"] = [engine.frames, audiocraft.frames]
    for guidance in (1.0, 3.3):
        for temperature in (0.0, 1.2):
            for generator in (engine, audiocraft):
                generator.sampling = replace(
                    generator.sampling, guidance_scale=guidance, temperature=temperature
                )
            (a, _), (b, broken) = engine.compose(texts, seeds), audiocraft.compose(texts, seeds)
            found[f"same_codes {guidance} {temperature}"] = torch.equal(a, b)
            found[f"whole {guidance} {temperature}"] = broken.tolist() == [-1] * 4
    singles = [audiocraft.compose([t], [s])[0] for t, s in zip(texts, seeds, strict=True)]
    found["same_alone"] = torch.equal(torch.cat(singles), b)
    found["distinct"] = len({str(clip.tolist()) for clip in b})
    waves = audiocraft.waves(b)
    found["waves"] = [list(waves.shape), float(abs(waves - engine.waves(a)).max())]
    codecs = [generator.codec.state_dict().values() for generator in (engine, audiocraft)]
    found["same_codec"] = all(map(torch.equal, *codecs))
    return found


found = {"mono": compare(mono, ""), "stereo": compare(stereo, "-stereo")}
theirs, crafted = root / "theirs", replace(spec, backend="audiocraft", model=str(root / "theirs"))


def refusal(function, *arguments) -> str:
    try:
        function(*arguments)
    except InputError as error:
        return str(error)
    return "not refused"


def refused_conversion(*arguments) -> str:
    try:
        convert(*arguments)
    except SystemExit as error:
        return str(error)
    return "not refused"


def refused_weights(**changes: torch.Tensor | None) -> str:
    """Convert the checkpoint with weights changed, or taken out."""
    path = theirs / "state_dict.bin"
    package = torch.load(path)
    weights = {k: v for k, v in (package["best_state"] | changes).items() if v is not None}
    folder = root / "changed"
    shutil.copytree(theirs, folder, dirs_exist_ok=True)
    torch.save(package | {"best_state": weights}, folder / path.name)
    return refused_conversion(folder, root / "x")


(root / "empty").mkdir()
found["refused"] = {
    "long": refusal(musicgen.load_generator, replace(crafted, duration_s=31.0)),
    "empty": refusal(musicgen.load_generator, replace(crafted, model=str(root / "empty"))),
    "text": refused_conversion(root / "ours", root / "x", "--codec", "tiny/codec"),
    "codec": refused_conversion(root / "ours", root / "x", "--text-encoder", "t5-small"),
    "not_one": refused_conversion(root / "empty", root / "x"),
    "missing": refused_weights(**{"out_norm.bias": None}),
    "left_over": refused_weights(**{"linears.0.bias": torch.ones(32)}),
    "size": refused_weights(**{"out_norm.bias": torch.ones(3)}),
}


class Trap:
    def __reduce__(self):
        return (print, ("unpickled",))


torch.save({"xp.cfg": "", "best_state": Trap()}, theirs / "state_dict.bin")
found["refused"]["trap"] = refusal(musicgen.load_generator, crafted)
found["left"] = (root / "x").exists()
print("RESULT" + json.dumps(found))
