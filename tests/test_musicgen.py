"""MusicGen shards on a small random checkpoint, and the sampler against the softmax."""

import math
import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import tiny_models
import torch
from scipy.stats import chisquare
from transformers import AutoTokenizer, MusicgenForConditionalGeneration

from conceptcaps import clips, io, musicgen, schemas, seeding, takes
from conceptcaps.clipquality import Limits
from conceptcaps.errors import InputError
from conceptcaps.sampling import ItemSampler

SCRIPTS = Path(__file__).resolve().parent.parent / "workflow/scripts"
RATE = tiny_models.MUSICGEN_RATE_HZ


NO_LIMITS = Limits(
    takes=1,
    silence_dbfs=-200.0,
    max_silent_share=1.0,
    max_clipped_share=1.0,
    min_lufs=-math.inf,
    max_lufs=math.inf,
    max_dc=1.0,
    min_bandwidth_hz=0.0,
    max_repetition=1.0,
)


@pytest.fixture(scope="session")
def model():
    return tiny_models.musicgen()


@pytest.fixture
def spec(model):
    return musicgen.Spec(
        backend="engine",
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
        quality=NO_LIMITS,
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
    takes.generate_shard(
        captions=table, arm=arm, spec=spec, seed=seed, output=output, ledger=ledger,
        takes=takes_of(output),
    )  # fmt: skip
    return output, ledger


def takes_of(output):
    return output.with_name(f"{output.stem}-takes.parquet")


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


def limited(spec, **changes):
    return replace(spec, quality=replace(spec.quality, **changes))


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
    output, ledger = play(tmp_path, limited(spec, silence_dbfs=sum(threshold) / 2), name="silence")
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
    assert rows["cc-0"]["reason"] == "logits at step 0 that are not finite (float32)"
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
        "from math import inf\n"
        "from conceptcaps import musicgen, takes\n"
        "from conceptcaps.clipquality import Limits\n"
        "takes.generate_shard(captions='whole-captions.parquet', arm='base', "
        f"spec=musicgen.{spec!r}, seed=7, output='killed.parquet', ledger='killed-ledger.parquet', "
        "takes='killed-takes.parquet')"
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


def test_codes_are_stored_and_decode_to_the_clip(tmp_path, spec):
    output, _ = play(tmp_path, replace(spec, level_dbfs=None, peak_dbfs=0.0))
    generator = musicgen.Generator(spec)
    for row in io.read_rows(output):
        codes = clips.unpack_codes(row)
        assert codes.shape == (4, 25) and codes.dtype == np.int16
        assert row["codes_sha256"] == clips.sha256(row["codes"])
        wave = generator.waves(torch.from_numpy(codes.astype(int))[None])[0, 0]
        heard, _ = clips.decode(row["audio"]["bytes"])
        np.testing.assert_allclose(heard, wave * 10 ** (row["gain_db"] / 20), atol=2 / 32768)


def test_a_batch_that_does_not_fit_is_halved(spec, monkeypatch, capsys):
    generator = musicgen.Generator(replace(spec, batch_size=8))
    texts, seeds = [caption for _, caption in CAPTIONS], list(range(6))
    whole, _ = generator.compose(texts, seeds)
    compose = generator.engine.compose

    def small(prompts, *arguments, **options):
        if len(prompts) > limit:
            raise torch.OutOfMemoryError("no room")
        return compose(prompts, *arguments, **options)

    limit = 2
    monkeypatch.setattr(generator.engine, "compose", small)
    assert torch.equal(generator.compose(texts, seeds)[0], whole)
    assert "from now on 1 clips at a time" in capsys.readouterr().out
    limit = 0
    with pytest.raises(InputError, match="one clip of"):
        generator.compose(texts, seeds)


def test_captions_over_the_text_encoders_length_are_cut_and_counted(tmp_path, spec, capsys):
    """In ledger and takes, not in the log alone, and they stay there over a resume."""
    long = "a slow jazz piece with piano " * 20
    output, ledger = play(tmp_path, spec, captions=[("a", "metal"), ("b", long)])
    assert "1 captions are longer than the text encoder reads" in capsys.readouterr().out
    assert [row["text_truncated"] for row in io.read_rows(takes_of(output))] == [False, True]
    assert [row["reason"][:21] for row in io.read_rows(ledger)] == ["", "the caption is longer"]
    generator = musicgen.Generator(spec)
    assert generator.truncated(["metal", long]) == [False, True]
    codes, _ = generator.compose([long, long + long], [1, 1])
    assert torch.equal(codes[0], codes[1])  # what is beyond the limit is not heard


def test_another_kind_of_checkpoint_is_named(tmp_path, spec, model):
    other = tmp_path / "t5"
    MusicgenForConditionalGeneration.from_pretrained(model).text_encoder.save_pretrained(other)
    AutoTokenizer.from_pretrained(model).save_pretrained(other)
    with pytest.raises(InputError, match=r"is a 't5' checkpoint"):
        play(tmp_path, replace(spec, model=str(other)))


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
    assert musicgen.Generator(replace(spec, duration_s=2.036)).frames == 512 - 3
