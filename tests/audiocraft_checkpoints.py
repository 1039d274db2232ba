"""Convert a small MusicGen to audiocraft's format and back, play both; prints findings as JSON.

Run by test_audiocraft.py in a process of its own, with a hub cache of its own: audiocraft takes
text encoder and codec from there, by name.
"""

import json
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


model = tiny_models.random_musicgen(text_width=512)  # that of t5-small, which audiocraft knows
pieces = [("<pad>", 0.0), ("</s>", 0.0), ("<unk>", 0.0), ("▁", -2.0)]
pieces += [(letter, -3.0) for letter in ascii_lowercase]
tokenizer = T5Tokenizer(vocab=pieces, extra_ids=0, model_max_length=64)
for part, name in ((model.text_encoder, "t5-small"), (model.audio_encoder, "tiny/codec")):
    part.save_pretrained(repository(name))
tokenizer.save_pretrained(root / "hub/models--t5-small/snapshots" / ("0" * 40))
torch.manual_seed(1)
other = tiny_models.random_musicgen(text_width=512).text_encoder
torch.nn.init.normal_(other.shared.weight)
other.save_pretrained(repository("t5-base"))
ours, theirs, back = (str(root / name) for name in ("ours", "theirs", "back"))
model.save_pretrained(ours)
tokenizer.save_pretrained(ours)
names = {"text_encoder": "t5-small", "codec": "tiny/codec"}
conversion.to_audiocraft(ours, theirs, **names)
conversion.to_transformers(theirs, back)
before, after = model.state_dict(), MusicgenForConditionalGeneration.from_pretrained(back)
found = {
    "round_trip": all(torch.equal(before[k], v) for k, v in after.state_dict().items()),
    "same_keys": before.keys() == after.state_dict().keys(),
    "start": after.generation_config.decoder_start_token_id,
}

config = yaml.safe_load(Path("config.yaml").read_text())["audio"]
spec = replace(
    musicgen.Spec.of(config), model=ours, revision=None, dtype="float32", duration_s=0.2, top_k=20
)
crafted = replace(spec, backend="audiocraft", model=theirs)
texts = ["a slow jazz piece with piano", "jazz", "a fast metal song with drums", "metal"]
seeds = [11, 22, 33, 44]
engine, audiocraft = musicgen.load_generator(spec), musicgen.load_generator(crafted)
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
singles = torch.cat([audiocraft.compose([t], [s])[0] for t, s in zip(texts, seeds, strict=True)])
found["same_alone"] = torch.equal(singles, b)
found["distinct"] = len({str(clip.tolist()) for clip in b})
waves = audiocraft.waves(b)
found["waves"] = [list(waves.shape), float(abs(waves - engine.waves(a)).max())]


def refusal(function, *args, **kwargs) -> str:
    try:
        function(*args, **kwargs)
    except InputError as error:
        return str(error)
    return "not refused"


(root / "empty").mkdir()
found["refused"] = {
    "long": refusal(musicgen.load_generator, replace(crafted, duration_s=31.0)),
    "empty": refusal(musicgen.load_generator, replace(crafted, model=str(root / "empty"))),
    "text": refusal(conversion.to_audiocraft, ours, root / "x", codec="tiny/codec"),
    "codec": refusal(conversion.to_audiocraft, ours, root / "x", text_encoder="t5-small"),
    "not_one": refusal(conversion.to_transformers, root / "empty", root / "x"),
}


class Trap:
    def __reduce__(self):
        return (print, ("unpickled",))


torch.save({"xp.cfg": "", "best_state": Trap()}, root / "theirs/state_dict.bin")
found["refused"]["trap"] = refusal(musicgen.load_generator, crafted)
found["left"] = (root / "x").exists()
print("RESULT" + json.dumps(found))
