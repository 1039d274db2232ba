"""Small real models that the tests of several modules share; each is built once a session."""

import math
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory

import torch
from transformers import (
    EncodecConfig,
    MusicgenConfig,
    MusicgenDecoderConfig,
    MusicgenForConditionalGeneration,
    T5Config,
)

from conceptcaps import io, mini_gpt2, mini_llama, mini_roberta, schemas
from conceptcaps.categories import TAGS_OF
from conceptcaps.chatmodel import Base
from conceptcaps.mini_tokenizer import train_tokenizer

MUSICGEN_RATE_HZ, MUSICGEN_CODES = 8000, 32
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
    mini_llama.train(prompts=PROMPTS, spec=spec, seed=0, output=path)
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
    return Base(**{"model": changes.get("model") or llama(), **facts, **changes})


def write_pairs(path, n=20):
    splits = ["train"] * (n - 6) + ["validation"] * 2 + ["test"] * 4
    rows = [
        {
            "id": f"pair{k:03d}",
            "ytid": f"clip{k:03d}",
            "caption": f"Here is a {TAGS[k % 5][0]} song. We hear {TAGS[k % 5][1]}, {k}.",
            "aspect_list": TAGS[k % 5],
            **{column: [] for column in TAGS_OF.values()},
            "split": split,
        }
        for k, split in enumerate(splits)
    ]
    io.write_table(path, rows, schemas.PAIRS)
    return path


def random_musicgen(
    *, channels=1, width=16, layers=2, heads=2, ffn=32, codes=MUSICGEN_CODES, text_width=24
):
    """Build a random MusicGen in which texts matter and tokens are not all as likely."""
    torch.manual_seed(0)
    text = T5Config(vocab_size=300, d_model=text_width, d_kv=8, d_ff=32, num_layers=2, num_heads=2)
    codec = EncodecConfig(
        sampling_rate=MUSICGEN_RATE_HZ, num_filters=4, hidden_size=16, codebook_dim=16,
        codebook_size=codes, upsampling_ratios=[8, 4], num_lstm_layers=1,
        target_bandwidths=[math.log2(codes)],  # 4 codebooks
    )  # fmt: skip
    decoder = MusicgenDecoderConfig(
        vocab_size=codes, max_position_embeddings=512, num_hidden_layers=layers, ffn_dim=ffn,
        num_attention_heads=heads, hidden_size=width, num_codebooks=4 * channels,
        audio_channels=channels, pad_token_id=codes, bos_token_id=codes,
    )  # fmt: skip
    config = MusicgenConfig(
        text_encoder=text.to_dict(), audio_encoder=codec.to_dict(), decoder=decoder.to_dict()
    )
    model = MusicgenForConditionalGeneration(config).eval()
    for layer in model.audio_encoder.quantizer.layers:
        layer.codebook.embed.normal_(std=3)  # as initialised, all codes are the same zeros
    with torch.no_grad():  # as initialised, texts change nothing and all tokens are as likely
        model.enc_to_dec_proj.weight *= 50
        for layer in model.decoder.model.decoder.layers:
            layer.encoder_attn.v_proj.weight *= 20
            layer.encoder_attn.out_proj.weight *= 20
        for head in model.decoder.lm_heads:
            head.weight *= 20
    model.generation_config.update(
        pad_token_id=codes, bos_token_id=codes, decoder_start_token_id=codes,
        do_sample=True, guidance_scale=3.0, max_length=1500,
    )  # as the public checkpoints  # fmt: skip
    return model


@cache
def musicgen() -> str:
    """Save a MusicGen of 4 codebooks of 32 codes, 250 frames a second, 512 positions."""
    torch.set_num_threads(1)  # two spinning threads are 20 times slower on a busy machine
    path = folder() / "musicgen"
    texts = ["a slow jazz piece with piano", "a fast metal song with drums and bass"]
    tokenizer = train_tokenizer(
        texts, vocab_size=300, special={"pad_token": "<pad>", "eos_token": "</s>"}
    )
    tokenizer.model_max_length = 32
    random_musicgen().save_pretrained(path)
    tokenizer.save_pretrained(path)
    return str(path)
