"""Small real models that the tests of several modules share; each is built once a session."""

from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory

from conceptcaps import io, mini_gpt2, mini_llama, mini_roberta, schemas
from conceptcaps.chatmodel import Base

PROMPTS = "resources/prompts/caption.yaml"
TAGS = (
    ["jazz", "piano", "slow tempo"],
    ["rock", "drums", "energetic", "fast tempo"],
    ["disco", "claps", "happy", "synth lead"],
    ["classical", "strings", "calm", "no voices"],
    ["blues", "acoustic guitar", "sad", "slow tempo", "deep male voice"],
)


@cache
def _temporary() -> TemporaryDirectory:
    return TemporaryDirectory(prefix="tiny_models_")  # removed when the session ends


def folder() -> Path:
    return Path(_temporary().name)


@cache
def llama() -> str:
    path = folder() / "llama"
    spec = {"steps": 40, "batch_size": 4, "learning_rate": 4e-3}
    mini_llama.train(spec=spec, seed=0, output=path)
    return str(path)


@cache
def roberta() -> str:
    path = folder() / "roberta"
    spec = {"steps": 2, "batch_size": 4, "learning_rate": 1e-3}
    mini_roberta.train(spec=spec, seed=0, output=path)
    return str(path)


@cache
def gpt2() -> str:
    path = folder() / "gpt2"
    spec = {"steps": 2, "batch_size": 4, "learning_rate": 1e-3}
    mini_gpt2.train(spec=spec, seed=0, output=path)
    return str(path)


def base(**changes) -> Base:
    facts = {"revision": None, "quantization": "nf4", "dtype": "float32", "prompts": PROMPTS}
    return Base(**{"model": llama(), **facts, **changes})


def write_pairs(path, n=20):
    splits = ["train"] * (n - 6) + ["validation"] * 2 + ["test"] * 4
    rows = [
        {
            "id": f"pair{k:03d}",
            "ytid": f"clip{k:03d}",
            "caption": f"Here is a {TAGS[k % 5][0]} song. We hear {TAGS[k % 5][1]}, {k}.",
            "aspect_list": TAGS[k % 5],
            **{column: [] for column in schemas.TAGS_OF.values()},
            "split": split,
        }
        for k, split in enumerate(splits)
    ]
    io.write_table(path, rows, schemas.PAIRS)
    return path
