"""MusicGen shards on a small random checkpoint, and the sampler against the softmax."""

import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from scipy.stats import chisquare
from transformers import (
    EncodecConfig,
    MusicgenConfig,
    MusicgenDecoderConfig,
    MusicgenForConditionalGeneration,
    T5Config,
)

from conceptcaps import clips, io, musicgen, schemas, seeding
from conceptcaps.errors import InputError
from conceptcaps.mini_tokenizer import train_tokenizer
from conceptcaps.sampling import ItemSampler

SCRIPTS = Path(__file__).resolve().parent.parent / "workflow/scripts"
RATE, CODES = 8000, 32


@pytest.fixture(scope="session")
def model(tmp_path_factory):
    """A MusicGen of 2 + 2 layers, 4 codebooks of 32 codes, 250 frames a second, 512 positions."""
    torch.set_num_threads(1)  # two spinning threads are 20 times slower on a busy machine
    torch.manual_seed(0)
    texts = ["a slow jazz piece with piano", "a fast metal song with drums and bass"]
    tokenizer = train_tokenizer(
        texts, vocab_size=300, special={"pad_token": "<pad>", "eos_token": "</s>"}
    )
    tokenizer.model_max_length = 32
    text = T5Config(vocab_size=300, d_model=24, d_kv=8, d_ff=32, num_layers=2, num_heads=2)
    codec = EncodecConfig(
        sampling_rate=RATE, num_filters=4, hidden_size=16, codebook_dim=16, codebook_size=CODES,
        upsampling_ratios=[8, 4], num_lstm_layers=1, target_bandwidths=[5.0],
    )  # fmt: skip
    decoder = MusicgenDecoderConfig(
        vocab_size=CODES, max_position_embeddings=512, num_hidden_layers=2, ffn_dim=32,
        num_attention_heads=2, hidden_size=16, num_codebooks=4, audio_channels=1,
        pad_token_id=CODES, bos_token_id=CODES,
    )  # fmt: skip
    config = MusicgenConfig(
        text_encoder=text.to_dict(), audio_encoder=codec.to_dict(), decoder=decoder.to_dict()
    )
    model = MusicgenForConditionalGeneration(config)
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
        pad_token_id=CODES, bos_token_id=CODES, decoder_start_token_id=CODES,
        do_sample=True, guidance_scale=3.0, max_length=1500,
    )  # as the public checkpoints  # fmt: skip
    path = tmp_path_factory.mktemp("musicgen")
    model.save_pretrained(path)
    tokenizer.save_pretrained(path)
    return str(path)


@pytest.fixture
def spec(model):
    return musicgen.Spec(
        model=model,
        revision=None,
        dtype="float32",
        duration_s=0.1,
        guidance_scale=3.0,
        temperature=1.0,
        top_k=0,
        batch_size=2,
        level_dbfs=-20.0,
        peak_dbfs=-1.0,
        silence_dbfs=-200.0,
        min_yield=0.0,
    )


CAPTIONS = [
    ("cc-0", "a slow jazz piece with piano"),
    ("cc-1", "a fast metal song"),
    ("cc-2", "  "),
    ("cc-3", "a calm song with drums and bass, and no voices at all"),
    ("cc-4", "metal"),
    ("cc-5", "a slow jazz piece with piano"),
]


def play(tmp_path, spec, *, captions=CAPTIONS, seed=7, arm="base", name="shard"):
    table = tmp_path / f"{name}-captions.parquet"
    rows = [dict.fromkeys(schemas.CAPTIONS.names) | {"id": i, "caption": c} for i, c in captions]
    io.write_table(table, rows, schemas.CAPTIONS)
    output, ledger = tmp_path / f"{name}.parquet", tmp_path / f"{name}-ledger.parquet"
    musicgen.generate_shard(
        captions=table, arm=arm, spec=spec, seed=seed, output=output, ledger=ledger
    )
    return output, ledger


def audio_of(output):
    return {row["id"]: row["audio"]["bytes"] for row in io.read_rows(output)}


@pytest.mark.parametrize("duration_s", [0.1, 0.12345])  # 25 frames; 30.9 frames
def test_clips_have_exactly_the_asked_length(tmp_path, spec, duration_s):
    output, _ = play(tmp_path, replace(spec, duration_s=duration_s))
    for row in io.read_rows(output):
        wave, rate = clips.decode(row["audio"]["bytes"])
        assert (len(wave), rate) == (round(duration_s * RATE), RATE)
        assert row["duration_s"] == len(wave) / RATE
        assert row["sha256"] == clips.sha256(row["audio"]["bytes"])
        assert row["seed"] == seeding.item_seed(7, "audio/base", row["id"])
        assert np.abs(wave).max() <= 10 ** (-1 / 20) + 1e-4


def test_empty_captions_are_in_the_ledger(tmp_path, spec):
    output, ledger = play(tmp_path, spec)
    statuses = {row["id"]: row["status"] for row in io.read_rows(ledger)}
    assert statuses == {id_: "ok" for id_, _ in CAPTIONS} | {"cc-2": "no_caption"}
    assert io.read_table(output).schema.equals(schemas.AUDIO)
    assert list(audio_of(output)) == ["cc-0", "cc-1", "cc-3", "cc-4", "cc-5"]
    assert not (tmp_path / "shard.parquet.partial").exists()


def test_nothing_to_play(tmp_path, spec):
    output, ledger = play(tmp_path, spec, captions=[("cc-0", None)])
    assert io.read_table(output).num_rows == 0
    assert io.read_rows(ledger)[0]["status"] == "no_caption"


def level_dbfs(data):
    wave, _ = clips.decode(data)
    return float(10 * np.log10(np.mean(wave**2.0)))


def test_every_clip_has_the_level_asked_for(tmp_path, spec):
    levels = [level_dbfs(data) for data in audio_of(play(tmp_path, spec)[0]).values()]
    assert np.allclose(levels, spec.level_dbfs, atol=0.1)


def test_silent_clips_are_lost_items(tmp_path, spec):
    spec = replace(spec, level_dbfs=None)  # levels as generated
    levels = {id_: level_dbfs(data) for id_, data in audio_of(play(tmp_path, spec)[0]).items()}
    threshold = sorted(levels.values())[1:3]  # between the second and third quietest
    output, ledger = play(tmp_path, replace(spec, silence_dbfs=sum(threshold) / 2), name="silence")
    quiet = {id_ for id_, level in levels.items() if level < sum(threshold) / 2}
    assert len(quiet) == 2
    assert {row["id"] for row in io.read_rows(ledger) if row["status"] == "silent"} == quiet
    assert set(audio_of(output)) == set(levels) - quiet


def test_not_finite_logits_are_lost_items(tmp_path, spec, model):
    broken = MusicgenForConditionalGeneration.from_pretrained(model)
    torch.nn.init.constant_(broken.decoder.lm_heads[2].weight, torch.nan)
    broken.save_pretrained(tmp_path / "broken")
    for file in Path(model).glob("token*"):
        (tmp_path / "broken" / file.name).write_bytes(file.read_bytes())
    output, ledger = play(tmp_path, replace(spec, model=str(tmp_path / "broken")))
    rows = {row["id"]: row for row in io.read_rows(ledger)}
    assert {row["status"] for row in rows.values()} == {"not_finite", "no_caption"}
    assert rows["cc-0"]["reason"] == "logits that are not finite (float32)"
    assert io.read_table(output).num_rows == 0


def test_min_yield_and_resume_inside_a_shard(tmp_path, spec, capsys):
    whole, ledger = play(tmp_path, spec, name="whole")
    with pytest.raises(InputError, match=r"1 of 6 items were lost .*no_caption"):
        play(tmp_path, replace(spec, min_yield=0.9), name="resumed")
    partial = tmp_path / "resumed.parquet.partial"
    assert sorted(p.name for p in partial.glob("*.parquet")) == [
        f"{i:05d}.parquet" for i in range(3)
    ]
    (partial / "00001.parquet").unlink()
    (partial / "00002.parquet").write_bytes(b"torn")
    capsys.readouterr()
    resumed, resumed_ledger = play(tmp_path, spec, name="resumed")
    assert "2 of 3 batches to play" in capsys.readouterr().out
    assert resumed.read_bytes() == whole.read_bytes()
    assert resumed_ledger.read_bytes() == ledger.read_bytes()


@pytest.mark.parametrize(
    "change",
    [
        {"seed": 8},
        {"arm": "zero_shot"},
        {"temperature": 0.5},
        {"captions": [("cc-0", "another caption"), *CAPTIONS[1:]]},
        {},
    ],
)
def test_a_partial_shard_of_other_settings_is_not_mixed_in(tmp_path, spec, capsys, change):
    spec = replace(spec, min_yield=0.9)
    with pytest.raises(InputError, match="min_yield"):
        play(tmp_path, spec)
    capsys.readouterr()
    options = dict(change)
    if "temperature" in options:
        spec = replace(spec, temperature=options.pop("temperature"))
    with pytest.raises(InputError, match="min_yield"):
        play(tmp_path, spec, **options)
    assert f"{3 if change else 0} of 3 batches to play" in capsys.readouterr().out


def test_a_killed_job_goes_on_to_the_same_bytes(tmp_path, spec):
    whole, ledger = play(tmp_path, spec, name="whole")
    job = (
        "from conceptcaps import musicgen\n"
        "musicgen.generate_shard(captions='whole-captions.parquet', arm='base', "
        f"spec=musicgen.{spec!r}, seed=7, output='killed.parquet', ledger='killed-ledger.parquet')"
    )
    environment = {**os.environ, "PYTHONPATH": str(SCRIPTS), "OMP_NUM_THREADS": "1"}
    process = subprocess.Popen([sys.executable, "-c", job], env=environment, cwd=tmp_path)
    first = tmp_path / "killed.parquet.partial/00000.parquet"
    while not first.exists() and process.poll() is None:
        time.sleep(0.002)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert first.exists()
    killed, killed_ledger = play(tmp_path, spec, name="killed")
    assert killed.read_bytes() == whole.read_bytes()
    assert killed_ledger.read_bytes() == ledger.read_bytes()


def test_clips_do_not_depend_on_batch_or_neighbours(tmp_path, spec):
    together = audio_of(play(tmp_path, spec)[0])
    alone = audio_of(play(tmp_path, spec, captions=CAPTIONS[3:4], name="alone")[0])
    backwards = replace(spec, batch_size=4)
    backwards = audio_of(play(tmp_path, backwards, captions=CAPTIONS[::-1], name="backwards")[0])
    assert set(together) == set(backwards)
    for other in (alone, backwards):
        for id_, data in other.items():  # the same tokens; rounding may move a 16-bit step
            wave, same = clips.decode(together[id_])[0], clips.decode(data)[0]
            np.testing.assert_allclose(wave, same, atol=4 / 32768)
            assert np.abs(wave).max() > 400 / 32768
    assert together["cc-0"] != together["cc-5"]  # the same caption, another item


def tokens_by_hand(generator, texts, seeds, *, frames):
    """Return codes [B, 4, frames]: whole forward passes, guidance, noise, then the delays."""
    inputs = generator._tokenize(texts)
    states = generator.model.text_encoder(**inputs).last_hidden_state
    mask = inputs["attention_mask"]
    sampler = ItemSampler(seeds, rows_per_item=4)
    tokens = torch.full((4 * len(texts), 1), CODES)
    for step in range(1, frames + 4):
        logits = generator.model(
            encoder_outputs=(torch.cat([states, torch.zeros_like(states)]),),
            attention_mask=torch.cat([mask, torch.zeros_like(mask)]),
            decoder_input_ids=tokens.repeat(2, 1),
        ).logits[:, -1]
        conditional, null = logits.chunk(2)
        scores = sampler(None, null + generator.spec.guidance_scale * (conditional - null))
        drawn = scores.argmax(-1).reshape(-1, 4)
        for book in range(4):
            if not book < step <= book + frames:
                drawn[:, book] = CODES
        tokens = torch.cat([tokens, drawn.reshape(-1, 1)], dim=1)
    tokens = tokens.reshape(len(texts), 4, -1)
    return torch.stack([tokens[:, k, k + 1 : k + 1 + frames] for k in range(4)], dim=1)


@torch.inference_mode()
def test_tokens_are_drawn_from_guided_logits(spec, monkeypatch):
    generator = musicgen.Generator(spec)
    texts, seeds = [CAPTIONS[0][1], CAPTIONS[1][1]], [11, 12]
    decode, seen = generator.model.audio_encoder.decode, {}
    monkeypatch.setattr(
        generator.model.audio_encoder,
        "decode",
        lambda codes, **options: seen.update(codes=codes) or decode(codes, **options),
    )
    generator.play(texts, seeds)
    expected = tokens_by_hand(generator, texts, seeds, frames=25)
    assert seen["codes"][0].tolist() == expected.tolist()
    generator.spec = replace(spec, guidance_scale=1.0)
    generator.play(texts, seeds)
    assert seen["codes"][0].tolist() != expected.tolist()


def test_sampled_first_tokens_follow_the_softmax(spec):
    logits = torch.randn(6, generator=torch.Generator().manual_seed(1)).repeat(4000, 1)
    tokens = ItemSampler(range(4000), temperature=0.7)(None, logits).argmax(-1)
    expected = 4000 * (logits[0] / 0.7).softmax(-1).double()
    assert chisquare(tokens.bincount(minlength=6), expected * 4000 / expected.sum()).pvalue > 1e-3
    wrong = 4000 * logits[0].softmax(-1).double()  # the test tells temperature 0.7 from 1
    assert chisquare(tokens.bincount(minlength=6), wrong * 4000 / wrong.sum()).pvalue < 1e-6


def test_rows_and_steps_have_independent_noise():
    sampler = ItemSampler(range(3000), rows_per_item=2)
    flat = torch.zeros(6000, 4)
    first = sampler(None, flat).argmax(-1).reshape(3000, 2)
    second = sampler(None, flat).argmax(-1).reshape(3000, 2)
    for pair in ((first[:, 0], first[:, 1]), (first[:, 0], second[:, 0])):
        joint = torch.stack(pair).T @ torch.tensor([4, 1])
        assert chisquare(joint.bincount(minlength=16)).pvalue > 1e-3


def test_top_k_and_top_p_keep_the_smallest_set():
    probabilities = torch.tensor([0.4, 0.05, 0.3, 0.05, 0.2])
    logits = probabilities.log().repeat(3000, 1)

    def shares(**options):
        tokens = ItemSampler(range(3000), **options)(None, logits).argmax(-1)
        return tokens.bincount(minlength=5) / 3000

    np.testing.assert_allclose(shares(top_k=2), [4 / 7, 0, 3 / 7, 0, 0], atol=0.04)
    np.testing.assert_allclose(shares(top_p=0.6), [4 / 7, 0, 3 / 7, 0, 0], atol=0.04)
    np.testing.assert_allclose(shares(top_p=0.75), [4 / 9, 0, 3 / 9, 0, 2 / 9], atol=0.04)
    assert shares(top_k=1).tolist() == [1, 0, 0, 0, 0]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"duration_s": 4.0}, r"audio\.duration_s: 4\.0 s takes 1003 positions.*at most 2\.04 s"),
        ({"model": "nowhere"}, r"audio\.model: nowhere is not a directory with a model"),
        ({"model": "no/model", "revision": "main"}, r"audio\.model: no/model .*cannot be loaded"),
        ({"guidance_scale": 0.5}, r"audio\.guidance_scale"),
    ],
)
def test_bad_settings_are_named(tmp_path, spec, change, message):
    with pytest.raises(InputError, match=message):
        play(tmp_path, replace(spec, **change))


def test_a_missing_tokenizer_is_named(tmp_path, spec, model):
    bare = tmp_path / "bare"
    bare.mkdir()
    for file in Path(model).iterdir():
        if not file.name.startswith(("token", "special")):
            (bare / file.name).write_bytes(file.read_bytes())
    with pytest.raises(InputError, match="tokenizer"):
        play(tmp_path, replace(spec, model=str(bare)))


def test_longest_clip_fits(spec):
    with pytest.raises(InputError):
        musicgen.Generator(replace(spec, duration_s=2.041))
    assert musicgen.Generator(replace(spec, duration_s=2.036)).steps == 512
