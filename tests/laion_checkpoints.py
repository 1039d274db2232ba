"""Make small checkpoints of laion_clap and load them; prints what was found as JSON.

Run by test_laion_clap.py in a process of its own, with a hub cache of its own.
"""

import json
import sys
import zipfile
from pathlib import Path

import numpy as np
import torch
from tokenizers import pre_tokenizers
from transformers import BartConfig, BertConfig, RobertaConfig, RobertaModel

torch.set_num_threads(1)
torch.manual_seed(0)
root = Path(sys.argv[1])


def repository(name, config):
    folder = root / "hub" / ("models--" + name.replace("/", "--"))
    snapshot = folder / "snapshots" / ("0" * 40)
    snapshot.mkdir(parents=True)
    (folder / "refs").mkdir()
    (folder / "refs/main").write_text("0" * 40)
    config.save_pretrained(snapshot)
    return snapshot


letters = sorted(pre_tokenizers.ByteLevel.alphabet())
vocabulary = {t: i for i, t in enumerate(["<s>", "<pad>", "</s>", "<unk>", "<mask>", *letters])}
text = RobertaConfig(
    vocab_size=len(vocabulary),
    hidden_size=768,
    num_hidden_layers=1,
    num_attention_heads=12,
    intermediate_size=64,
    max_position_embeddings=80,
)
roberta = repository("roberta-base", text)
RobertaModel(text).save_pretrained(roberta)
for snapshot in (roberta, repository("facebook/bart-base", BartConfig())):
    (snapshot / "vocab.json").write_text(json.dumps(vocabulary))
    (snapshot / "merges.txt").write_text("#version: 0.2\n")
bert = repository("bert-base-uncased", BertConfig())
(bert / "vocab.txt").write_text("\n".join(["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "a"]))

# Only now: its import loads the three tokenizers above.
import laion_clap  # noqa: E402

from conceptcaps import embedders  # noqa: E402
from conceptcaps.embedders import LaionClap  # noqa: E402
from conceptcaps.errors import InputError  # noqa: E402

module = laion_clap.CLAP_Module(enable_fusion=False, amodel="HTSAT-tiny")
for name, buffer in module.named_buffers():
    if "running_mean" in name:
        buffer.normal_()  # so that a checkpoint whose buffers are not loaded is noticed
weights = {"module." + name: value for name, value in module.model.state_dict().items()}
weights["module.text_branch.embeddings.position_ids"] = torch.arange(80)[None]
optimiser = {"lr": np.float64(1e-4)}  # as in published checkpoints
torch.save({"epoch": 15, "state_dict": weights, "optimizer": optimiser}, root / "new.pt")
with zipfile.ZipFile(root / "new.pt") as new, zipfile.ZipFile(root / "music.pt", "w") as old:
    for item in new.infolist():  # pickled by numpy 1
        data = new.read(item)
        if item.filename.endswith("data.pkl"):
            assert b"numpy._core.multiarray" in data
            data = data.replace(b"numpy._core.multiarray", b"numpy.core.multiarray")
        old.writestr(item, data)


class Trap:
    def __reduce__(self):
        return (print, ("unpickled",))


torch.save({"state_dict": Trap()}, root / "trap.pt")
torch.save({"state_dict": {"module.x": torch.ones(1)}}, root / "other.pt")
folder = dict(model=str(root), revision=None)
refused = {}
for checkpoint, architecture in (("trap.pt", "HTSAT-tiny"), ("music.pt", "HTSAT-smal")):
    try:
        LaionClap(checkpoint=checkpoint, architecture=architecture, **folder)
    except InputError as error:
        refused[checkpoint] = str(error)
try:  # on the module that is there: building another takes seconds
    other = embedders.read_weights(root / "other.pt")
    embedders._load_weights(module.model, other, path="other.pt", architecture="HTSAT-tiny")
except InputError as error:
    refused["other.pt"] = str(error)
embedder = LaionClap(checkpoint="music.pt", architecture="HTSAT-tiny", **folder)
rng = np.random.default_rng(0)
waves = [(0.2 * rng.standard_normal(480000)).astype(np.float32) for _ in range(2)]
texts = ["a slow jazz piece", "x " * 80]
audio, (words, cut) = embedder.embed_audio(waves), embedder.embed_text(texts)
print(
    "RESULT"
    + json.dumps(
        {
            "rate": embedder.sampling_rate_hz,
            "window_s": embedder.window_s,
            "audio": float(np.abs(audio - module.get_audio_embedding_from_data(waves)).max()),
            "text": float(np.abs(words - module.get_text_embedding(texts)).max()),
            "norms": [float(x) for x in np.linalg.norm(np.vstack([audio, words]), axis=1)],
            "cut": cut.tolist(),
            "refused": refused,
        }
    )
)
