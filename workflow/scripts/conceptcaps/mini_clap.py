"""The miniature CLAP: a small ClapModel trained on the grammar's captions and synthesised clips."""

import time
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import torch
from transformers import ClapConfig, ClapFeatureExtractor, ClapModel, ClapProcessor, EncodecModel

from conceptcaps import (
    clap,
    mini_codec,
    mini_tokenizer,
    mini_training,
    runlog,
    seeding,
    wording,
)
from conceptcaps.embedders import TEXT_TOKENS, TransformersClap

MEL_BANDS = 64
HOP = 256  # samples: 4 s at 16 kHz give 251 frames; the model takes up to 256
EVALUATION_PAIRS = 300
_CODEC_SHARE = 0.5  # of the training clips: heard through the codec
_LEVELS_DB = 10.0  # a training clip is up to this much louder or softer than it was played
SPECIAL = {  # RoBERTa's own order of ids: its positions start behind the id of the padding
    "cls_token": "<s>",
    "pad_token": "<pad>",
    "sep_token": "</s>",
    "unk_token": "<unk>",
}


def train(*, codec: str | Path, spec: dict, world: dict, seed: int, output: str | Path) -> None:
    """Train a small CLAP, through the feature extractor that is saved with it.

    Every step pairs clips with captions written anew, half of them in each style. Half of the clips
    are heard through the codec, as recordings are that were compressed, and each at a level of its
    own. Held-out tag sets are not trained on.

    Args:
        codec: model directory of the codec.
        spec: steps, batch_size, learning_rate, clips (config: mini.clap).
        world: clip_s in seconds, sampling_rate_hz (config: mini).
        seed: global seed.
        output: model directory to write, with the processor and training.json; its auc is the
            chance that a matched pair scores above a shuffled one, on 300 pairs not trained on.
    """
    started = time.monotonic()
    seeding.seed_everything(seed)
    processor = build_processor(world, seed=seed)
    audio_encoder = EncodecModel.from_pretrained(codec, dtype=torch.float32).eval()
    tags, waves = mini_codec.synthesise(spec["clips"], world=world, seed=seed)
    through = round(_CODEC_SHARE * len(waves))
    waves[:through] = mini_codec.reconstruct(audio_encoder, waves[:through])
    features = _features(processor, waves)
    model = ClapModel(build_config(processor.tokenizer))
    losses = mini_training.fit(
        model,
        lambda step: _batch(
            processor, tags, features, step=step, size=spec["batch_size"], seed=seed
        ),
        steps=spec["steps"],
        learning_rate=spec["learning_rate"],
        what="mini.clap",
        bfloat16=True,
    )
    with TemporaryDirectory() as scratch:  # the embedder of the scores reads a directory
        model.eval().save_pretrained(scratch)
        processor.save_pretrained(scratch)
        quality = {"auc": evaluate(scratch, world=world, seed=seed)}
    mini_training.save(
        model,
        processor,
        output,
        name="clap",
        summary="A CLAP of the synthesiser's clips and the grammar's captions",
        spec=spec,
        losses=losses,
        started=started,
        seed=seed,
        quality=quality,
    )


def build_processor(world: dict, *, seed: int) -> ClapProcessor:
    """Return the feature extractor (log-mel, dB) and a tokenizer learned from 2,000 captions."""
    tokenizer = mini_tokenizer.train_tokenizer(
        mini_training.captions(2000, seed=seed, stage="mini_text"), vocab_size=800, special=SPECIAL
    )
    tokenizer.model_max_length = TEXT_TOKENS
    extractor = ClapFeatureExtractor(
        feature_size=MEL_BANDS,
        sampling_rate=world["sampling_rate_hz"],
        hop_length=HOP,
        max_length_s=int(world["clip_s"]),
        fft_window_size=1024,
        frequency_min=40,
        frequency_max=world["sampling_rate_hz"] // 2,
        truncation="rand_trunc",  # the name of plain, not fused, features; clips are never longer
        padding="repeatpad",
    )
    return ClapProcessor(extractor, tokenizer)


def build_config(tokenizer) -> ClapConfig:
    """Return the architecture: two towers of 0.4 million weights each, joint width 128."""
    text = {
        "vocab_size": len(tokenizer),
        "hidden_size": 128,
        "intermediate_size": 256,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "max_position_embeddings": TEXT_TOKENS + tokenizer.pad_token_id + 1,
        "hidden_dropout_prob": 0.0,
        "attention_probs_dropout_prob": 0.0,
        "pad_token_id": tokenizer.pad_token_id,
        "bos_token_id": tokenizer.cls_token_id,
        "eos_token_id": tokenizer.sep_token_id,
    }
    audio = {
        "window_size": 4,
        "num_mel_bins": MEL_BANDS,
        "spec_size": 128,
        "patch_size": 4,
        "patch_stride": [4, 4],
        "patch_embeds_hidden_size": 32,
        "depths": [1, 1, 2],
        "num_attention_heads": [2, 4, 8],
        "hidden_size": 128,  # = 64 * 2^(stages - 1)
        "mlp_ratio": 2.0,
        "enable_fusion": False,
        "hidden_dropout_prob": 0.0,
        "attention_probs_dropout_prob": 0.0,
        "drop_path_rate": 0.0,
    }
    return ClapConfig(text_config=text, audio_config=audio, projection_dim=128)


def evaluate(directory: str | Path, *, world: dict, seed: int) -> float:
    """Return the AUC of matched against shuffled pairs, through the embedder that scores use."""
    fresh = seeding.item_seed(seed, "mini_clap", "evaluation")
    tags, waves = mini_codec.synthesise(EVALUATION_PAIRS, world=world, seed=fresh, held_out=True)
    texts = [
        _caption(played, seeding.item_rng(fresh, "text", str(k))) for k, played in enumerate(tags)
    ]
    embedder = TransformersClap(model=str(directory), revision=None)
    audio, (text, _) = embedder.embed_audio(list(waves.numpy())), embedder.embed_text(texts)
    matched = (audio * text).sum(axis=1)
    return clap.auc(matched, (audio * np.roll(text, 1, axis=0)).sum(axis=1))


def _features(processor: ClapProcessor, waves: torch.Tensor) -> torch.Tensor:
    """Return log-mel features [clips, 1, frames, bands] of waves [clips, T]."""
    rate = processor.feature_extractor.sampling_rate
    rows = [
        processor.feature_extractor(wave.numpy(), sampling_rate=rate, return_tensors="pt")
        for wave in runlog.progress(waves, what="features")
    ]
    return torch.cat([row["input_features"] for row in rows]).float()


def _batch(processor, tags, features, *, step: int, size: int, seed: int) -> dict:
    rng = seeding.item_rng(seed, "mini_clap", str(step))
    drawn = rng.choice(len(tags), size=min(size, len(tags)), replace=False)
    texts = [_caption(tags[k], rng) for k in drawn]
    encoded = processor.tokenizer(
        texts, padding=True, truncation=True, max_length=TEXT_TOKENS, return_tensors="pt"
    )
    levels = torch.from_numpy(rng.uniform(-_LEVELS_DB, _LEVELS_DB, (len(drawn), 1, 1, 1))).float()
    return {
        "input_ids": encoded["input_ids"],
        "attention_mask": encoded["attention_mask"],
        "input_features": features[drawn] + levels,  # in dB
        "is_longer": torch.zeros(len(drawn), 1, dtype=torch.bool),
        "return_loss": True,
    }


def _caption(tags: dict[str, list[str]], rng: np.random.Generator) -> str:
    return wording.write_caption(tags, rng, style=str(rng.choice(["concise", "verbose"])))
