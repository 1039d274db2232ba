"""The miniature MusicGen (Copet et al. 2023): captions to codec tokens, trained on the synth."""

import time
from pathlib import Path
from types import SimpleNamespace

import torch
from torch import nn
from transformers import (
    EncodecFeatureExtractor,
    EncodecModel,
    MusicgenDecoderConfig,
    MusicgenForCausalLM,
    MusicgenForConditionalGeneration,
    MusicgenProcessor,
    PreTrainedTokenizerFast,
    T5Config,
    T5EncoderModel,
)

from conceptcaps import grammar, mini_codec, mini_tokenizer, mini_training, runlog, seeding, wording

_UNCAPTIONED_SHARE = 0.1  # of the training clips: what guidance compares with
_VERBOSE_SHARE = 0.25  # of the captions: the arms write in both styles
_TAG_STEPS, _TAG_RATE = 300, 4e-3  # steps and learning rate of the text encoder's first training
_HELD_OUT_CLIPS = 100
_WEIGHTS = (0.4, 0.25, 0.2, 0.15)  # of the codebooks in the loss: the first carries the music


def train(*, codec: str | Path, spec: dict, world: dict, seed: int, output: str | Path) -> None:
    """Train a MusicGen with a T5 text encoder over the tokens of a codec.

    Args:
        codec: model directory of the codec; it becomes a part of the model and is not trained.
        spec: steps, batch_size, learning_rate, clips (config: mini.musicgen).
        world: clip_s in seconds, sampling_rate_hz (config: mini).
        seed: global seed.
        output: model directory to write, with tokenizer, processor and generation config.

    **Differs:** MusicGen's T5 is pretrained on text and frozen; this one first learns to name the
    tags of captions, then goes on learning with the decoder.
    """
    started = time.monotonic()
    seeding.seed_everything(seed)
    audio_encoder = EncodecModel.from_pretrained(codec, dtype=torch.float32).eval()
    tags, waves = mini_codec.synthesise(spec["clips"], world=world, seed=seed)
    codes = encode(audio_encoder, waves)
    tokenizer = build_tokenizer(seed)
    model = build_model(audio_encoder, tokenizer, frames=codes.shape[2])

    teach_tags(model.text_encoder, tokenizer, spec=spec, seed=seed)

    def batch_of(step: int) -> dict:
        rng = seeding.item_rng(seed, "mini_musicgen", str(step))
        rows = rng.integers(len(codes), size=spec["batch_size"])
        captions = [_caption(tags[row], rng) for row in rows]
        text = tokenizer(captions, padding=True, return_tensors="pt")
        kept = torch.from_numpy(rng.random((len(rows), 1)) >= _UNCAPTIONED_SHARE)
        return {
            "input_ids": text.input_ids,
            "attention_mask": text.attention_mask * kept,
            "codes": codes[rows],
        }

    losses = mini_training.fit(
        Trainer(model),
        batch_of,
        steps=spec["steps"],
        learning_rate=spec["learning_rate"],
        what="mini.musicgen",
        bfloat16=True,
    )
    processor = MusicgenProcessor(EncodecFeatureExtractor.from_pretrained(codec), tokenizer)
    mini_training.save(
        model,
        processor,
        output,
        name="musicgen",
        summary="A MusicGen of the synthesiser's clips, with a T5 text encoder and the codec",
        spec=spec,
        losses=losses,
        started=started,
        seed=seed,
        quality=_measure(model.eval(), tokenizer, world=world, seed=seed),
    )


@torch.no_grad()
def _measure(
    model: MusicgenForConditionalGeneration, tokenizer, *, world: dict, seed: int
) -> dict[str, float]:
    """Return each codebook's cross-entropy on held-out clips with concise captions, in nats."""
    fresh = seeding.item_seed(seed, "mini_musicgen", "evaluation")
    tags, waves = mini_codec.synthesise(_HELD_OUT_CLIPS, world=world, seed=fresh, held_out=True)
    rng = seeding.item_rng(fresh, "captions", "")
    captions = [wording.write_caption(played, rng, style="concise") for played in tags]
    codes = encode(model.audio_encoder, waves)
    text = tokenizer(captions, padding=True, return_tensors="pt")
    each = Trainer(model)(codes, input_ids=text.input_ids, attention_mask=text.attention_mask)
    return {f"heldout_loss_{k + 1}": loss.item() for k, loss in enumerate(each.codebooks)}


def _caption(tags: dict[str, list[str]], rng) -> str:
    style = "verbose" if rng.random() < _VERBOSE_SHARE else "concise"
    return wording.write_caption(tags, rng, style=style)


class TagReader(nn.Module):
    """A text encoder with a linear reading of its mean state: which tags does the caption name?"""

    def __init__(self, encoder: T5EncoderModel):
        """Put an untrained linear layer behind the encoder."""
        super().__init__()
        self.encoder = encoder
        self.read = nn.Linear(encoder.config.d_model, len(grammar.CATEGORY_OF))

    def forward(self, named: torch.Tensor, **text: torch.Tensor) -> SimpleNamespace:
        """Return the cross-entropy with the tags named, [B, tags] of 0 and 1."""
        states = self.encoder(**text).last_hidden_state  # (B, L, D)
        mask = text["attention_mask"][..., None]
        mean = (states * mask).sum(1) / mask.sum(1)
        loss = nn.functional.binary_cross_entropy_with_logits(self.read(mean), named)
        return SimpleNamespace(loss=loss)


def teach_tags(
    encoder: T5EncoderModel, tokenizer: PreTrainedTokenizerFast, *, spec: dict, seed: int
) -> list[float]:
    """Train a text encoder to tell a caption's tags, and return the losses.

    Without it a decoder trained as briefly as this one ignores the captions altogether.
    """

    def batch_of(step: int) -> dict:
        rng = seeding.item_rng(seed, "mini_musicgen_tags", str(step))
        captions = [_caption(grammar.sample_tags(rng), rng) for _ in range(spec["batch_size"])]
        named = [[float(tag in caption) for tag in grammar.CATEGORY_OF] for caption in captions]
        text = tokenizer(captions, padding=True, return_tensors="pt")
        return {"named": torch.tensor(named), **text}

    return mini_training.fit(
        TagReader(encoder),
        batch_of,
        steps=_TAG_STEPS,
        learning_rate=_TAG_RATE,
        what="mini.musicgen tags",
    )


@torch.no_grad()
def encode(codec: EncodecModel, waves: torch.Tensor) -> torch.Tensor:
    """Encode waves [N, T] to codes [N, codebooks, frames]."""
    batches = waves[:, None].split(4)  # small ones stay in the processor's cache: twice as fast
    return torch.cat(
        [codec.encode(wave).audio_codes[0] for wave in runlog.progress(batches, what="encoded")]
    )


class Trainer(nn.Module):
    """A MusicGen with its loss; Transformers leaves the delays between codebooks to the caller."""

    def __init__(self, model: MusicgenForConditionalGeneration):
        """Wrap a model."""
        super().__init__()
        self.model = model

    def forward(self, codes: torch.Tensor, **text: torch.Tensor) -> SimpleNamespace:
        """Return the loss of codes [B, K, frames], and each codebook's own, [K], in nats."""
        pad = self.model.config.decoder.pad_token_id
        labels = delay(codes, pad=pad)  # (B, K, L)
        inputs = nn.functional.pad(labels, (1, -1), value=pad).flatten(0, 1)
        logits = self.model(**text, decoder_input_ids=inputs, use_cache=False).logits.float()
        each = nn.functional.cross_entropy(
            logits.transpose(1, 2), labels.flatten(0, 1), ignore_index=pad, reduction="none"
        )
        each = each.view_as(labels).sum((0, 2)) / (labels != pad).sum((0, 2))
        return SimpleNamespace(loss=each @ each.new_tensor(_WEIGHTS), codebooks=each.detach())


def delay(codes: torch.Tensor, *, pad: int) -> torch.Tensor:
    """Lay codes [B, K, frames] out as [B, K, frames + K - 1]: codebook k comes k steps late."""
    batch, codebooks, frames = codes.shape
    late = codes.new_full((batch, codebooks, frames + codebooks - 1), pad)
    for k in range(codebooks):
        late[:, k, k : k + frames] = codes[:, k]
    return late


def build_tokenizer(seed: int) -> PreTrainedTokenizerFast:
    """Learn T5's kind of tokenizer (pad 0, end 1) from 2,000 captions of the grammar."""
    rngs = [seeding.item_rng(seed, "mini_musicgen_text", str(k)) for k in range(2000)]
    tokenizer = mini_tokenizer.train_tokenizer(
        (_caption(grammar.sample_tags(rng), rng) for rng in rngs),
        vocab_size=600,
        special={"pad_token": "<pad>", "eos_token": "</s>"},
    )
    tokenizer.model_max_length = 512
    return tokenizer


def build_model(
    audio_encoder: EncodecModel, tokenizer: PreTrainedTokenizerFast, *, frames: int
) -> MusicgenForConditionalGeneration:
    """Join a new text encoder and decoder to the codec; generates `frames` frames by default."""
    text = T5Config(
        vocab_size=len(tokenizer),
        d_model=128,
        d_kv=32,
        d_ff=256,
        num_layers=2,
        num_heads=4,
        dropout_rate=0.0,
        pad_token_id=tokenizer.pad_token_id,
        eos_token_id=tokenizer.eos_token_id,
    )
    start = audio_encoder.config.codebook_size  # one id beyond the codes: pad, start and end
    decoder = MusicgenDecoderConfig(
        vocab_size=start,
        num_codebooks=audio_encoder.config.num_quantizers,
        hidden_size=192,
        num_hidden_layers=5,
        num_attention_heads=6,
        ffn_dim=768,
        dropout=0.05,
        pad_token_id=start,
        bos_token_id=start,
        decoder_start_token_id=start,
    )
    model = MusicgenForConditionalGeneration(
        text_encoder=T5EncoderModel(text),
        audio_encoder=audio_encoder,
        decoder=MusicgenForCausalLM(decoder),
    )
    # Else there is none, and the decoder sees the future.
    model.set_attn_implementation(
        {"text_encoder": "eager", "audio_encoder": "eager", "decoder": "sdpa"}
    )
    model.freeze_audio_encoder()
    model.generation_config.update(
        do_sample=True,
        guidance_scale=3.0,
        max_new_tokens=frames + decoder.num_codebooks - 1,  # the last codebook comes so much late
        pad_token_id=start,
        bos_token_id=start,
        decoder_start_token_id=start,
    )
    return model
