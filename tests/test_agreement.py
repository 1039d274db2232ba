"""CLAP scores of arms summed up: baselines, retrieval, gates, paired tests."""

import re
from types import SimpleNamespace

import numpy as np
import pytest

from conceptcaps import agreement, clap, clapfigure, io, schemas
from conceptcaps.errors import InputError


@pytest.fixture
def spec():
    return clap.Spec("transformers", "some/model", "main", None, None, 4.0, 3)


def unit(x):
    return x / np.linalg.norm(x, axis=1, keepdims=True)


def write_scores(path, audio, text, start=0):
    rows = [
        dict.fromkeys(schemas.CLAP.names)
        | {
            "id": f"cc-{start + i:04d}",
            "audio_embedding": a,
            "text_embedding": t,
            "text_truncated": i % 10 == 0,
        }
        for i, (a, t) in enumerate(zip(audio, text, strict=True))
    ]
    io.write_table(path, rows, schemas.CLAP)
    return path


@pytest.fixture
def arms(tmp_path):
    """Arm `good`: captions near their clips, in 2 shards; arm `noise`: captions of nothing."""
    rng = np.random.default_rng(0)
    audio, other = unit(rng.standard_normal((60, 16))), unit(rng.standard_normal((40, 16)))
    text = unit(audio + 0.1 * rng.standard_normal((60, 16)))
    nothing = unit(rng.standard_normal((40, 16)))
    return {
        "good": [
            write_scores(tmp_path / "g0.parquet", audio[:30], text[:30]),
            write_scores(tmp_path / "g1.parquet", audio[30:], text[30:], 30),
        ],
        "noise": [write_scores(tmp_path / "n0.parquet", other, nothing)],
    }


def noise(folder):
    rng = np.random.default_rng(5)
    path = folder / "controls.parquet"
    rows = [
        {"id": f"{kind}-{i:04d}", "audio_embedding": row}
        for kind in ("noise", "silence")
        for i, row in enumerate(unit(rng.standard_normal((30, 16))))
    ]
    io.write_table(path, rows, schemas.EMBEDDINGS)
    return path


def summary(arms, spec, output):
    controls = noise(output.parent)
    agreement.summarise(shards=arms, controls=controls, spec=spec, seed=3, output=output)
    found = io.read_json(output)["arms"]
    return {arm: {metric["name"]: metric for metric in metrics} for arm, metrics in found.items()}


def test_summary_tells_matched_from_shuffled(tmp_path, arms, spec):
    found = summary(arms, spec, tmp_path / "clap.json")
    good, noise = found["good"], found["noise"]
    names = ["clap_score", "clap_shuffled", "clap_auc", "clap_noise", "retrieval_r1"]
    names += ["retrieval_r5", "retrieval_r10", "retrieval_median_rank", "text_truncated"]
    assert list(good) == names
    assert good["text_truncated"]["value"] == pytest.approx(0.1)
    assert good["retrieval_median_rank"]["value"] == 1
    assert 5 < noise["retrieval_median_rank"]["value"] < 35  # of 40, without agreement: 20
    assert abs(good["clap_noise"]["value"]) < 0.1
    assert good["clap_score"]["value"] > 0.9
    assert abs(good["clap_shuffled"]["value"]) < 0.15  # 4 standard errors of 60 cosines in 16-d
    assert good["clap_auc"]["value"] > 0.99
    assert good["retrieval_r1"]["value"] > 0.95
    assert abs(noise["clap_auc"]["value"] - 0.5) < 0.2
    assert noise["clap_auc"]["ci_low"] < 0.5 < noise["clap_auc"]["ci_high"]
    assert noise["retrieval_r10"]["value"] == pytest.approx(10 / 40, abs=0.25)
    assert {m["n"] for m in good.values()} == {60, 40}  # retrieval at equal N
    assert good["retrieval_r1"]["n"] == noise["retrieval_r1"]["n"] == 40
    for metric in (*good.values(), *noise.values()):
        assert metric["ci_low"] <= metric["value"] <= metric["ci_high"]
    assert (
        summary({"good": arms["good"][::-1], "noise": arms["noise"]}, spec, tmp_path / "b.json")
        == found
    )


def test_summary_needs_two_clips(tmp_path, arms, spec):
    arms["one"] = [write_scores(tmp_path / "one.parquet", np.eye(4)[:1], np.eye(4)[:1])]
    with pytest.raises(InputError, match=r"one\.parquet: arm one has 1 clips"):
        summary(arms, spec, tmp_path / "clap.json")


def test_retrieval_ranks_by_hand():
    audio = np.eye(3, dtype=np.float32)
    text = np.array([[1, 0, 0], [0.9, 0.1, 0], [0.5, 0, 0.5]], np.float32)
    assert agreement.retrieval_ranks(audio, text).tolist() == [1, 2, 2]  # a tie counts against


def gates_of(output):
    return {gate["name"]: gate["holds"] for gate in io.read_json(output)["gates"]}


def test_a_good_checkpoint_passes_its_gates(tmp_path, arms, spec):
    summary(arms, spec, tmp_path / "clap.json")
    assert gates_of(tmp_path / "clap.json") == {
        "text_cosine": True,
        "matched_above_shuffled": True,
        "matched_above_noise": True,
    }


def test_a_collapsed_text_tower_fails_its_gate_and_nothing_is_compared(tmp_path, spec):
    rng = np.random.default_rng(0)
    audio = unit(rng.standard_normal((40, 16)))
    text = unit(audio[:1] + 0.05 * rng.standard_normal((40, 16)))  # all in one place
    shards = {
        "good": [write_scores(tmp_path / "a.parquet", audio, text)],
        "other": [write_scores(tmp_path / "b.parquet", text, text)],
    }
    summary(shards, spec, tmp_path / "clap.json")
    gates = gates_of(tmp_path / "clap.json")
    assert not gates["text_cosine"] and not gates["matched_above_shuffled"]
    (row,) = io.read_json(tmp_path / "clap.json")["comparisons"]
    assert row["p_value"] < 0.01 and row["verdict"] == "not judged"


def test_arms_are_compared_over_the_same_tags(tmp_path, arms, spec):
    summary(arms, spec, tmp_path / "clap.json")
    (row,) = io.read_json(tmp_path / "clap.json")["comparisons"]
    assert (row["arm"], row["against"], row["n"]) == ("good", "noise", 40)  # ids that both have
    assert row["verdict"] == "higher" and row["p_value"] == pytest.approx(1 / 10_001)
    assert row["ci_low"] < row["difference"] < row["ci_high"] and row["effect"] > 1


def test_a_paired_difference_is_found_that_means_would_hide():
    rng = np.random.default_rng(0)
    level = dict(enumerate(rng.normal(0.3, 0.3, 200)))
    better = {k: v + 0.01 + 0.02 * rng.standard_normal() for k, v in level.items()}
    same = {k: v + 0.02 * rng.standard_normal() for k, v in level.items()}
    rows = agreement.compare({"a": level, "b": better, "c": same}, 1, held=True)
    verdicts = {(row["arm"], row["against"]): row["verdict"] for row in rows}
    assert verdicts == {("a", "b"): "lower", ("a", "c"): "not separable", ("b", "c"): "higher"}
    assert all(row["p_holm"] >= row["p_value"] for row in rows)


def test_arms_without_common_tags_are_not_judged():
    (row,) = agreement.compare({"a": {"x": 1.0}, "b": {"y": 2.0}}, 1, held=True)
    assert (row["n"], row["verdict"], row["p_value"]) == (0, "not judged", None)


def test_sign_flips_keep_their_level():
    rng = np.random.default_rng(0)
    p = [agreement.sign_flip_p(rng.standard_normal(15), rng=rng) for _ in range(60)]
    assert 0.3 < np.mean(p) < 0.7  # uniform under the null
    three = agreement.sign_flip_p(np.ones(3), rng=rng)
    assert three == pytest.approx(2 / 8, abs=0.02)  # all signs equal


def shown(path):
    return "\n".join(re.findall(r"<!-- (.*?) -->", path.read_text()))


def test_the_figure_has_two_panels_and_says_the_verdicts(tmp_path, arms, spec):
    shards = {"conceptcaps": arms["good"], "zero_shot": arms["noise"]}
    summary(shards, spec, tmp_path / "clap.json")
    for name in ("one", "two"):
        output = SimpleNamespace(png=tmp_path / f"{name}.png", svg=tmp_path / f"{name}.svg")
        clapfigure.plot_clap(scores=tmp_path / "clap.json", output=output)
    assert (tmp_path / "one.svg").read_bytes() == (tmp_path / "two.svg").read_bytes()
    told = shown(tmp_path / "one.svg")
    for text in ("The dataset and others", "What wrote the captions", "captions shuffled"):
        assert text in told
    assert "N = 60" in told and "N = 40" in told
    assert "below conceptcaps" in told


def test_the_figure_says_that_a_gate_failed(tmp_path, spec):
    x = unit(np.ones((8, 4)) + 0.01 * np.random.default_rng(0).standard_normal((8, 4)))
    x = np.hstack([x, np.zeros((8, 12))])
    shards = {name: [write_scores(tmp_path / name, x, x)] for name in ("conceptcaps", "base")}
    summary(shards, spec, tmp_path / "clap.json")
    output = SimpleNamespace(png=tmp_path / "a.png", svg=tmp_path / "a.svg")
    clapfigure.plot_clap(scores=tmp_path / "clap.json", output=output)
    assert "gates that fail: text_cosine" in shown(tmp_path / "a.svg")
    assert "not judged" in shown(tmp_path / "a.svg")
