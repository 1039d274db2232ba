"""The miniature codec and MusicGen: real architectures, a few steps, on the synthesiser's clips."""

import json

import numpy as np
import pytest
import torch
from transformers import (
    AutoFeatureExtractor,
    AutoProcessor,
    AutoTokenizer,
    EncodecModel,
    MusicgenForConditionalGeneration,
)

from conceptcaps import mini_codec, mini_musicgen

WORLD = {"clip_s": 1.0, "sampling_rate_hz": 16000}
SPEC = {"steps": 20, "batch_size": 4, "learning_rate": 2e-3, "clips": 24}


@pytest.fixture(scope="module")
def codec(tmp_path_factory):
    folder = tmp_path_factory.mktemp("models") / "codec"
    mini_codec.train(spec=SPEC, world=WORLD, seed=1, output=folder)
    return folder


@pytest.fixture(scope="module")
def musicgen(codec):
    folder = codec.parent / "musicgen"
    mini_musicgen.train(codec=codec, spec=SPEC, world=WORLD, seed=1, output=folder)
    return folder


def test_codec_learns_reloads_and_has_four_codebooks_at_25_hz(codec):
    training = json.loads((codec / "training.json").read_text())
    assert training["steps"] == 20 and training["loss_last"] < 0.8 * training["loss_first"]
    model = EncodecModel.from_pretrained(codec, dtype=torch.float32).eval()
    assert AutoFeatureExtractor.from_pretrained(codec).sampling_rate == 16000
    _, waves = mini_codec.synthesise(8, world=WORLD, seed=2)
    codes = mini_musicgen.encode(model, waves)
    assert codes.shape == (8, 4, 25)
    assert all(len(codes[:, k].unique()) > 20 for k in range(4))  # no codebook has collapsed
    with torch.no_grad():
        played = model.decode(codes[None], [None]).audio_values
    assert played.shape == (8, 1, 16000) and played.std() > 1e-3


def test_default_initialisation_loses_the_signal_and_rescaling_keeps_it():
    torch.manual_seed(0)
    model = EncodecModel(mini_codec.build_config(16000)).eval()
    _, waves = mini_codec.synthesise(4, world=WORLD, seed=2)
    with torch.no_grad():
        before = model.encoder(waves[:, None]).std(dim=2).mean()
        mini_codec.scale_layers(model, waves[:, None])
        after = model.encoder(waves[:, None])
        played = model.decoder(after)
    assert before < 0.05 < 0.3 < after.std(dim=2).mean()
    assert after.std() == pytest.approx(1, abs=0.01)
    assert played.std() == pytest.approx(0.1, abs=0.002)


def test_quantiser_returns_the_codes_it_would_encode_to(monkeypatch):
    torch.manual_seed(0)
    model = EncodecModel(mini_codec.build_config(16000)).eval()
    _, waves = mini_codec.synthesise(16, world=WORLD, seed=2)
    mini_codec.scale_layers(model, waves[:, None])
    trainer = mini_codec.Trainer(model)
    trainer.set_codebooks(waves[:, None])
    with torch.no_grad():
        latent = model.encoder(waves[:, None])
        expected = model.quantizer.decode(model.quantizer.encode(latent, 0.8))
        monkeypatch.setattr(mini_codec, "_SHORTENED_SHARE", 0.0)
        torch.testing.assert_close(trainer._quantise(latent), expected, atol=1e-4, rtol=1e-4)
    assert (latent - expected).var() < 0.2 * latent.var()  # k-means explains the latents


def test_distance_is_zero_for_equal_waves_and_grows_with_noise():
    trainer = mini_codec.Trainer(EncodecModel(mini_codec.build_config(16000)))
    wave = torch.from_numpy(np.sin(np.arange(16000) / 10).astype(np.float32))[None]
    noise = torch.randn(1, 16000, generator=torch.Generator().manual_seed(0))
    distances = [trainer.distance(wave + level * noise, wave) for level in (0, 0.01, 0.1)]
    assert distances[0] == 0 and distances[0] < distances[1] < distances[2]


def test_delay_lays_codebook_k_k_steps_late():
    codes = torch.arange(8).view(1, 2, 4)
    expected = torch.tensor([[[0, 1, 2, 3, 9], [9, 4, 5, 6, 7]]])
    assert torch.equal(mini_musicgen.delay(codes, pad=9), expected)


def test_decoder_sees_nothing_of_the_future(codec):
    torch.manual_seed(0)
    tokenizer = mini_musicgen.build_tokenizer(0)
    audio_encoder = EncodecModel.from_pretrained(codec, dtype=torch.float32)
    model = mini_musicgen.build_model(audio_encoder, tokenizer, frames=25).eval()
    text = tokenizer(["a slow tempo"], return_tensors="pt")
    codes = torch.randint(0, 256, (4, 20))
    other = torch.cat([codes[:, :12], torch.randint(0, 256, (4, 8))], dim=1)
    with torch.no_grad():
        a, b = (model(**text, decoder_input_ids=c, use_cache=False).logits for c in (codes, other))
    assert torch.equal(a[:, :12], b[:, :12]) and not torch.equal(a[:, 12:], b[:, 12:])


def test_text_encoder_learns_to_name_tags(codec):
    torch.manual_seed(0)
    tokenizer = mini_musicgen.build_tokenizer(0)
    model = mini_musicgen.build_model(
        EncodecModel.from_pretrained(codec, dtype=torch.float32), tokenizer, frames=25
    )
    spec = {"batch_size": 8}
    losses = mini_musicgen.teach_tags(model.text_encoder, tokenizer, spec=spec, seed=0)
    assert np.mean(losses[-20:]) < 0.37  # a reader that sees no captions can reach 0.40


def test_musicgen_learns_and_keeps_the_codec(musicgen, codec):
    training = json.loads((musicgen / "training.json").read_text())
    assert training["loss_last"] < training["loss_first"] - 0.2
    model = MusicgenForConditionalGeneration.from_pretrained(musicgen, dtype=torch.float32)
    kept, own = (
        EncodecModel.from_pretrained(codec, dtype=torch.float32).state_dict(),
        model.audio_encoder.state_dict(),
    )
    assert all(torch.equal(own[name], value) for name, value in kept.items())


def test_musicgen_folder_generates_audio_of_the_clips_length(musicgen):
    processor = AutoProcessor.from_pretrained(musicgen)
    model = MusicgenForConditionalGeneration.from_pretrained(musicgen, dtype=torch.float32).eval()
    texts = ["A slow tempo blues with piano.", "Metal."]
    inputs = processor(text=texts, padding=True, return_tensors="pt")
    assert inputs.input_ids.tolist() == (
        AutoTokenizer.from_pretrained(musicgen)(texts, padding=True).input_ids
    )
    torch.manual_seed(0)
    waves = model.generate(**inputs)
    assert waves.shape == (2, 1, 16000)
    assert waves.isfinite().all() and (waves.square().mean(-1).sqrt() > 1e-3).all()


def test_training_twice_gives_the_same_model(tmp_path):
    folders = [tmp_path / "first", tmp_path / "second"]
    for folder in folders:
        mini_codec.train(spec={**SPEC, "steps": 2}, world=WORLD, seed=1, output=folder)
    states = [
        EncodecModel.from_pretrained(folder, dtype=torch.float32).state_dict() for folder in folders
    ]
    assert all(torch.equal(states[0][name], states[1][name]) for name in states[0])
