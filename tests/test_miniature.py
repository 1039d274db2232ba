"""The miniature's checks: the judge hears what is played, figures and bounds are what they say."""

import json
import re
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import torch

from conceptcaps import (
    clap,
    grammar,
    io,
    mini_checks,
    mini_codec,
    mini_judge,
    mini_page,
    miniature,
    musicgen,
    schemas,
)
from conceptcaps.clips import iter_clips

ROOT = Path(__file__).resolve().parent.parent
ZOO = ROOT / "resources/mini/models"
WORLD = {"clip_s": 4.0, "sampling_rate_hz": 16000}
ITEMS = 24


@pytest.fixture(scope="module")
def clips(tmp_path_factory):
    path = tmp_path_factory.mktemp("miniature") / "clips.parquet"
    spec = musicgen.Spec(
        backend="engine", model=str(ZOO / "musicgen"), revision=None, dtype="float32",
        duration_s=1.0,
        guidance_scale=3.0, temperature=1.0, top_k=50, batch_size=12, level_dbfs=None,
        peak_dbfs=-1.0, quality=None, min_yield=1.0,
    )  # fmt: skip
    miniature.play(spec=spec, clip_s=WORLD["clip_s"], items=ITEMS, seed=5, output=path)
    return path


@pytest.fixture(scope="module")
def measured(clips):
    path = clips.with_name("clips.json")
    spec = clap.Spec(
        backend="transformers", model=str(ZOO / "clap"), revision=None, checkpoint=None,
        architecture=None, window_s=4.0, batch_size=16,
    )  # fmt: skip
    miniature.measure_clips(
        clips=clips, judge=ZOO / "judge", clap_spec=spec, bootstraps=20, seed=5, output=path
    )
    return {metric["name"]: metric for metric in io.read_json(path)["metrics"]}


def test_every_kind_plays_the_same_heldout_sets_at_one_level(clips):
    rows, waves = zip(*iter_clips(clips), strict=True)
    assert io.read_table(clips).schema.equals(schemas.MINIATURE)
    of_kind = {kind: [row for row in rows if row["kind"] == kind] for kind in miniature.KINDS}
    assert {kind: len(found) for kind, found in of_kind.items()} == dict.fromkeys(
        miniature.KINDS, ITEMS
    )
    sets = {kind: [row["aspect_list"] for row in found] for kind, found in of_kind.items()}
    assert sets["played"] == sets["codec"] == sets["generated"] == sets["noise"]
    every = [tuple(tags) for tags in sets["played"] + sets["reference"]]
    assert len(set(every)) == 2 * ITEMS
    assert all(grammar.is_held_out(grammar.by_category(list(tags))) for tags in every)
    levels = [np.sqrt(np.mean(wave**2)) for wave in waves]
    assert np.median(levels) == pytest.approx(miniature.LEVEL_RMS, rel=0.01)
    assert max(levels) < 1.01 * miniature.LEVEL_RMS


def test_judge_and_clap_tell_music_from_noise(measured):
    assert measured["played_genre_accuracy"]["value"] > 0.8
    assert measured["generated_tempo_accuracy"]["value"] > 0.6
    assert measured["generated_clap_auc"]["value"] > 0.75
    assert 0.2 < measured["noise_clap_auc"]["value"] < 0.8
    distances = [measured[f"fad_{kind}"]["value"] for kind in mini_checks.FAD_ORDER]
    assert distances[-1] == max(distances)
    step = measured["fad_step_generated_noise"]
    assert step["value"] == pytest.approx(distances[3] - distances[2])
    assert step["ci_low"] <= step["value"] <= step["ci_high"]


def test_figures_of_known_logits():
    rng = np.random.default_rng(0)
    tags = [grammar.sample_tags(rng) for _ in range(200)]
    truth = mini_judge.multi_hot(tags).numpy()
    perfect = mini_judge.figures(truth, truth > 0)
    assert set(perfect.values()) == {1.0}
    blind = mini_judge.figures(np.zeros_like(truth), truth > 0)
    assert blind["instrument_auc"] == blind["fast_slow_auc"] == 0.5
    assert blind["genre_accuracy"] < 0.25
    wrong = mini_judge.figures(-truth, truth > 0)
    assert wrong["genre_accuracy"] == 0 and wrong["fast_slow_auc"] == 0


def test_judge_learns(tmp_path):
    codec = ZOO / "codec"
    spec = {"steps": 30, "batch_size": 16, "learning_rate": 3e-3, "clips": 60}
    mini_judge.train(codec=codec, spec=spec, world=WORLD, seed=1, output=tmp_path / "judge")
    training = io.read_json(tmp_path / "judge/training.json")
    assert training["loss_last"] < 0.8 * training["loss_first"]
    _, waves = mini_codec.synthesise(4, world=WORLD, seed=2)
    judge = mini_judge.load(tmp_path / "judge")
    logits, embedded = mini_judge.read(judge, waves)
    assert logits.shape == (4, len(mini_judge.TAGS)) and np.isfinite(logits).all()
    with torch.inference_mode():
        assert np.allclose(logits, judge(waves), atol=1e-5)
    assert embedded.shape == (4, 128)


def test_judge_does_not_hear_the_level():
    _, waves = mini_codec.synthesise(4, world=WORLD, seed=2)
    judge = mini_judge.load(ZOO / "judge")
    loud, soft = (torch.from_numpy(mini_judge.read(judge, gain * waves)[0]) for gain in (1.0, 0.3))
    assert (loud - soft).abs().mean() < 0.1 * loud.abs().mean()


def write_figures(folder, *, tempo=0.97, recall=0.98, shuffled=False, slow=-0.3, lost=0.1):
    """Write the inputs of `mini_checks.check`, all of whose checks hold by default."""

    def metric(name, value, width=0.01):
        return {"name": name, "value": value, "ci_low": value - width, "ci_high": value + width}

    values = {name: 0.99 for name, *_ in mini_checks.CLIP_BOUNDS}
    values |= {"generated_tempo_accuracy": tempo, "noise_clap_auc": 0.51}
    values |= {f"fad_step_{a}_{b}": 0.2 for a, b in pairwise(mini_checks.FAD_ORDER)}
    clips = [metric(*item) for item in values.items()]
    tags = [
        metric("tags_marginal_mae", 0.006),
        metric("tags_cooccurrence_cosine", 0.99),
        metric("tags_exclusive_pairs", 0),
    ]
    arms = {"conceptcaps": recall, "base": 0.7, "zero_shot": 0.3}
    text = {
        arm: [metric(name, value) for name in mini_checks.ARM_METRICS]
        for arm, value in arms.items()
    }
    cell = {name: None for name in schemas.TCAV.names} | {
        "layer": "conv4",
        "control": "",
        "significant": True,
    }
    planted = [
        ("metal", "distorted electric guitar", 0.4),
        ("classical", "piano", 0.2),
        ("disco", "slow tempo", slow),
        ("disco", "fast tempo", 0.3),
    ]
    rows = [cell | {"genre": g, "concept": c, "alignment": a} for g, c, a in planted]
    rows += [
        cell
        | {
            "genre": "pop",
            "concept": "x",
            "alignment": 0.5,
            "control": "shuffled",
            "significant": shuffled,
        }
    ] * 10
    files = {
        name: folder / name for name in ("clips", "tags", "text", "genrecnn", "tcav", "output")
    }
    draft = dict.fromkeys(schemas.DRAFTS.names)
    passes, fails = {"status": "ok", "tag_recall": 1.0}, {"status": "lost", "tag_recall": 0.5}
    drafts = [
        draft | {"id": str(k), "attempt": 0} | (fails if k < 100 * lost else passes)
        for k in range(100)
    ]
    files["drafts"] = [folder / "drafts0", folder / "drafts1"]
    io.write_table(files["drafts"][0], drafts[:40], schemas.DRAFTS)
    io.write_table(files["drafts"][1], drafts[40:], schemas.DRAFTS)
    io.write_json(files["clips"], {"metrics": clips})
    io.write_json(files["tags"], {"metrics": tags})
    io.write_json(files["text"], {"arms": text})
    io.write_json(files["genrecnn"], {"metrics": [metric("clip_accuracy", 0.9)]})
    io.write_table(files["tcav"], rows, schemas.TCAV)
    return files


@pytest.mark.parametrize(
    ("change", "fails"),
    [
        ({}, set()),
        ({"tempo": 0.69}, {"generated_tempo_accuracy"}),
        (
            {"recall": 0.71},
            {f"{name}_conceptcaps_above_base" for name in mini_checks.ARM_METRICS},
        ),
        ({"shuffled": True}, {"tcav_shuffled_significant"}),
        ({"lost": 0.21}, {"caption_yield"}),
        ({"lost": 0.4}, {"caption_yield", "caption_recall_before_gate"}),
        ({"slow": 0.3}, {"tcav_genres_slow_against_fast"}),
    ],
)
def test_a_check_fails_where_its_bound_is_broken(tmp_path, change, fails):
    files = write_figures(tmp_path, **change)
    mini_checks.check(**files)
    checks = json.loads(files["output"].read_text())
    assert {check["name"] for check in checks if not check["holds"]} == fails
    assert all(set(check) == {"name", "value", "bound", "holds"} for check in checks)
    assert len(checks) == 32
    assert f"{32 - len(fails)} of 32 hold" in mini_checks.summary(checks)


def test_every_check_is_explained(tmp_path):
    files = write_figures(tmp_path)
    mini_checks.check(**files)
    page = (ROOT / "docs/metrics_miniature.md").read_text()
    table = re.findall(r"^\| (`.+) \|.+\|$", page, flags=re.MULTILINE)
    explained = [name for row in table for name in re.findall(r"`(\w+)`", row)]
    names = [check["name"] for check in json.loads(files["output"].read_text())]
    assert sorted(explained) == sorted(names)


def test_the_gate_is_measured_on_first_drafts_and_on_what_it_kept():
    drafts = [("a", 0, "ok", 1.0), ("b", 0, "missing_tags", 0.5), ("b", 1, "ok", 0.8),
              ("c", 0, "missing_tags", 0.0), ("c", 1, "too_short", 1.0)]  # fmt: skip
    names = ("id", "attempt", "status", "tag_recall")
    figures = mini_checks.caption_figures([dict(zip(names, d, strict=True)) for d in drafts])
    assert figures == pytest.approx(
        {
            "caption_recall_before_gate": 0.5,
            "caption_recall": 0.9,
            "captions_naming_all_tags": 0.5,
            "caption_yield": 2 / 3,
        }
    )


def test_page_holds_clips_of_every_genre_and_escapes(clips, tmp_path):
    checks = [{"name": "a<b", "value": 0.5, "bound": ">= 0.9", "holds": False}]
    io.write_json(tmp_path / "checks.json", checks)
    page = tmp_path / "page.html"
    mini_page.write(checks=tmp_path / "checks.json", clips=clips, examples=8, output=page)
    text = page.read_text()
    assert text.count("<audio") == 24 and text.count("data:audio/flac;base64,ZkxhQ") == 24
    assert "a&lt;b" in text and "does not hold" in text and "0 of 1 checks hold" in text
    assert "http" not in text  # complete in itself
