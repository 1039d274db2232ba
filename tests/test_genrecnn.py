"""The genre classifier: its front end, windows and votes, its split, training, saving."""

import json
import math
from dataclasses import replace

import numpy as np
import pytest
import torch

from conceptcaps import clips, genrecnn, genrenet, genresplit, io, schemas
from conceptcaps.errors import InputError

RATE = 8000
SPEC = genrenet.Spec(
    window_s=0.5,
    mel_bands=24,
    channels=[8, 16],
    bottleneck=16,
    dropout=0.1,
    epochs=8,
    patience=8,
    batch_size=16,
    learning_rate=1e-2,
    validation=0.1,
    test=0.25,
    residual_blocks=0,
    augment={"time_mask": 0.0, "frequency_mask": 0, "frequency_shift": 0},
)


def tone(*, hz, seed, seconds=1.0):
    rng = np.random.default_rng(seed)
    t = np.arange(round(seconds * RATE)) / RATE
    return np.sin(2 * np.pi * hz * rng.uniform(0.9, 1.1) * t) + 0.3 * rng.standard_normal(len(t))


def row(clip_id, wave, genre):
    data, _ = clips.encode_flac(wave, RATE, peak=0.8)
    return {
        "id": clip_id,
        "audio": {"bytes": data, "path": f"{clip_id}.flac"},
        "sampling_rate": RATE,
        "duration_s": len(wave) / RATE,
        "sha256": clips.sha256(data),
        "genre": genre,
    }


@pytest.fixture(scope="module")
def corpus(tmp_path_factory):
    path = tmp_path_factory.mktemp("corpus") / "clips.parquet"
    rows = [
        row(f"{genre}.{k:02d}", tone(hz=hz, seed=1000 * hz + k), genre)
        for genre, hz in (("high", 1500), ("low", 300))
        for k in range(24)
    ]
    io.write_table(path, rows, schemas.GENRE_CLIPS)
    return path


@pytest.fixture(scope="module")
def fitted(corpus, tmp_path_factory):
    torch.set_num_threads(1)
    return fit(corpus, tmp_path_factory.mktemp("fitted"))


def fit(corpus, folder, spec=SPEC, splits=()):
    paths = {name: folder / name for name in ("model.safetensors", "config.json", "metrics.json")}
    genrecnn.fit(
        clips=corpus,
        spec=spec,
        sampling_rate_hz=RATE,
        seed=1,
        splits=splits,
        model=paths["model.safetensors"],
        config=paths["config.json"],
        metrics=paths["metrics.json"],
    )
    return paths


def test_learns_two_synthetic_classes(fitted):
    report = io.read_json(fitted["metrics.json"])
    metrics = {metric["name"]: metric for metric in report["metrics"]}
    assert metrics["clip_accuracy"]["value"] >= 0.9
    assert metrics["clip_accuracy"]["n"] == 12
    assert metrics["clip_accuracy"]["ci_low"] < metrics["clip_accuracy"]["value"]
    assert 0 <= metrics["expected_calibration_error"]["value"] <= 1
    assert metrics["expected_calibration_error"]["ci_low"] is None
    null = metrics["calibration_error_null"]  # 12 clips, however sure: not 0 by chance
    assert 0 <= null["ci_low"] <= null["value"] <= null["ci_high"] and null["ci_high"] > 0
    assert np.sum(report["confusion"], axis=1).tolist() == [6, 6]
    assert np.trace(report["confusion"]) == round(12 * metrics["clip_accuracy"]["value"])
    assert report["classes"] == ["high", "low"]
    losses = [epoch["train_loss"] for epoch in report["history"]]
    assert losses[-1] < losses[0] / 2


def test_the_same_seed_gives_the_same_bytes(corpus, fitted, tmp_path):
    again = fit(corpus, tmp_path)
    assert all(again[name].read_bytes() == fitted[name].read_bytes() for name in fitted)


def test_parts_of_the_split_are_disjoint_and_complete(fitted, corpus):
    split = io.read_json(fitted["config.json"])["split"]
    ids = [clip_id for part in split.values() for clip_id in part]
    assert sorted(ids) == sorted(r["id"] for r in io.read_rows(corpus, ["id"]))
    assert len(set(ids)) == len(ids)
    assert [len(split[part]) for part in ("train", "validation", "test")] == [32, 4, 12]


def test_split_is_stratified_and_keeps_identical_recordings_together():
    rows = [
        {"id": f"{g}{k}", "genre": g, "sha256": f"{g}{k // 2}"} for g in "ab" for k in range(40)
    ]
    split = genresplit.split_clips(rows, validation=0.1, test=0.2, seed=3)
    part_of = {clip_id: part for part, ids in split.items() for clip_id in ids}
    assert all(part_of[f"{g}{k}"] == part_of[f"{g}{k + 1}"] for g in "ab" for k in range(0, 40, 2))
    for part, share in (("test", 0.2), ("validation", 0.1)):
        assert sum(clip_id.startswith("a") for clip_id in split[part]) == share * 40
    assert split == genresplit.split_clips(rows[::-1], validation=0.1, test=0.2, seed=3)
    assert split != genresplit.split_clips(rows, validation=0.1, test=0.2, seed=4)


def test_a_genre_with_too_few_clips_is_named():
    rows = [
        {"id": "x1", "genre": "polka", "sha256": "1"},
        {"id": "x2", "genre": "polka", "sha256": "2"},
    ]
    with pytest.raises(InputError, match="'polka' has 2 clips"):
        genresplit.split_clips(rows, validation=0.1, test=0.2, seed=3)


def test_windows_are_cut_without_overlap():
    wave = np.arange(10, dtype=np.float32)
    cut = genrenet.cut_windows(wave, sampling_rate_hz=2, window_s=2.0)
    assert cut.tolist() == [[0, 1, 2, 3], [4, 5, 6, 7]]
    padded = genrenet.cut_windows(wave[:3], sampling_rate_hz=2, window_s=2.0)
    assert padded.tolist() == [[0, 1, 2, 0]]


def test_vote_is_the_mean_of_log_probabilities():
    logits = torch.log(torch.tensor([[0.9, 0.1], [0.4, 0.6]]))
    odds = math.sqrt(0.9 * 0.4) / math.sqrt(0.1 * 0.6)  # geometric means
    assert genrenet.vote(logits).exp()[0].item() == pytest.approx(odds / (1 + odds), abs=1e-6)


def test_mel_filters_are_triangles_on_the_mel_scale():
    filters = genrenet.mel_filterbank(sampling_rate_hz=16000, fft=16384, bands=20)  # (bins, bands)
    hz = np.linspace(0, 8000, 8193)
    mel = 2595 * np.log10(1 + hz[filters.argmax(0)] / 700)
    assert np.allclose(np.diff(mel), 2595 * np.log10(1 + 8000 / 700) / 21, rtol=0.02)
    inside = (hz > hz[filters[:, 0].argmax()]) & (hz < hz[filters[:, -1].argmax()])
    assert (filters.sum(0) > 0).all()
    assert torch.allclose(filters.sum(1)[inside], torch.ones(1), atol=1e-3)  # neighbours add to one
    narrow = genrenet.mel_filterbank(sampling_rate_hz=16000, fft=256, bands=64)
    assert (narrow.sum(0) > 0).all()


def test_front_end_ignores_the_level(fitted):
    network, _ = genrenet.load(fitted["model.safetensors"], fitted["config.json"])
    wave = torch.from_numpy(tone(hz=440, seed=0, seconds=0.5)).float()[None]
    with torch.no_grad():
        assert torch.allclose(network(wave), network(0.1 * wave), atol=1e-3)


def test_early_stopping_keeps_the_best_epoch(capsys):
    torch.manual_seed(0)
    network = genrenet.GenreCNN(SPEC, classes=2, sampling_rate_hz=RATE)
    x, y = torch.randn(32, 24, 20), torch.arange(32) % 2  # nothing to learn: validation gets worse
    spec = genrenet.Spec(**{**vars(SPEC), "epochs": 60, "patience": 2})
    history = genrecnn.train(network, train=(x, y), validation=(x.flip(2), 1 - y), spec=spec)
    best = min(range(len(history)), key=lambda k: history[k]["validation_loss"])
    assert len(history) == best + 1 + 2
    with torch.no_grad():
        loss = torch.nn.functional.cross_entropy(network.classify(x.flip(2)), 1 - y).item()
    assert loss == pytest.approx(history[best]["validation_loss"], abs=1e-5)


def test_saved_weights_give_equal_logits(fitted, tmp_path):
    torch.manual_seed(0)
    network, described = genrenet.load(fitted["model.safetensors"], fitted["config.json"])
    again, _ = genrenet.load(fitted["model.safetensors"], fitted["config.json"])
    windows = torch.randn(3, RATE // 2)
    with torch.no_grad():
        assert torch.equal(network(windows), again(windows))
        assert not torch.equal(network(windows)[0], network(windows)[1])
    assert not network.training
    assert described["classes"] == ["high", "low"]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"classes": ["low", "high"]}, "are not those"),
        ({"classes": ["high", "low", "polka"]}, "are not those"),
        ({"spec": {**vars(SPEC), "bottleneck": 8}}, "does not fit the spec"),
    ],
)
def test_a_config_of_another_classifier_is_refused(fitted, tmp_path, change, message):
    config = tmp_path / "config.json"
    config.write_text(json.dumps(io.read_json(fitted["config.json"]) | change))
    with pytest.raises(InputError, match=message):
        genrenet.load(fitted["model.safetensors"], config)


def test_weights_that_are_none_are_refused(fitted, tmp_path):
    (tmp_path / "model.safetensors").write_bytes(b"nothing")
    with pytest.raises(InputError, match="is not a genre classifier's weights"):
        genrenet.load(tmp_path / "model.safetensors", fitted["config.json"])


def test_calibration_error_closed_form():
    confidence, right = np.array([0.95, 0.95, 0.65, 1.0]), np.array([True, False, True, True])
    expected = (abs(2 - 2.9) + abs(1 - 0.65)) / 4
    assert genrecnn.calibration_error(confidence, right) == pytest.approx(expected)


def test_reliability_says_what_the_calibration_error_sums():
    confidence = np.array([0.95, 0.92, 0.55, 0.41, 1.0])
    right = np.array([True, False, True, False, True])
    rows = genrecnn.reliability(confidence, right)
    assert [row["n"] for row in rows] == [1, 1, 3]
    assert rows[2]["accuracy"] == pytest.approx(2 / 3) and rows[2]["low"] == pytest.approx(0.9)
    gap = sum(row["n"] * abs(row["accuracy"] - row["confidence"]) for row in rows) / 5
    assert gap == pytest.approx(genrecnn.calibration_error(confidence, right))


def test_the_report_has_reliability_over_all_test_clips(fitted):
    rows = io.read_json(fitted["metrics.json"])["reliability"]
    assert sum(row["n"] for row in rows) == 12


def test_a_larger_network_by_config_learns_saves_and_loads(corpus, tmp_path):
    spec = replace(SPEC, residual_blocks=1, channels=[8, 24], epochs=4)
    paths = fit(corpus, tmp_path, spec)
    report = io.read_json(paths["metrics.json"])
    assert report["metrics"][0]["value"] >= 0.9
    network, described = genrenet.load(paths["model.safetensors"], paths["config.json"])
    assert described["spec"]["residual_blocks"] == 1
    assert network.get_submodule("conv2")(torch.zeros(1, 8, 6, 8)).shape == (1, 24, 3, 4)
    small = genrenet.GenreCNN(SPEC, classes=2, sampling_rate_hz=RATE)
    assert sum(p.numel() for p in network.parameters()) > 3 * sum(
        p.numel() for p in small.parameters()
    )


def test_augmentation_hides_and_shifts_each_window_in_its_own_way():
    torch.manual_seed(0)
    windows = torch.arange(1.0, 25)[None, :, None].expand(200, 24, 40).contiguous()  # value = band
    none = genrenet.augment(windows, time_mask=0.0, frequency_mask=0, frequency_shift=0)
    assert none is windows
    shifted = genrenet.augment(windows, time_mask=0.0, frequency_mask=0, frequency_shift=2)
    assert {float(w[10, 0]) for w in shifted} == {9.0, 10, 11, 12, 13}
    assert shifted.min() == 1 and shifted.max() == 24  # the edge is repeated
    masked = genrenet.augment(windows, time_mask=0.25, frequency_mask=6, frequency_shift=0) == 0
    frames, bands = masked.all(dim=1).sum(1), masked.all(dim=2).sum(1)  # hidden, of each window
    assert set(frames.tolist()) == set(range(11)) and set(bands.tolist()) == set(range(7))
    for window in masked:
        hidden = window.all(dim=0).nonzero().flatten().tolist()
        assert hidden == list(range(hidden[0], hidden[0] + len(hidden))) if hidden else True
    kept = genrenet.augment(windows, time_mask=0.25, frequency_mask=6, frequency_shift=0)
    assert torch.equal(kept[kept != 0], windows[kept != 0])


def test_training_uses_augmentation_and_evaluation_does_not(corpus, fitted, tmp_path):
    spec = replace(SPEC, augment={"time_mask": 0.3, "frequency_mask": 4, "frequency_shift": 1})
    paths = fit(corpus, tmp_path, spec)
    assert paths["model.safetensors"].read_bytes() != fitted["model.safetensors"].read_bytes()
    assert io.read_json(paths["metrics.json"])["metrics"][0]["value"] >= 0.9
    network, _ = genrenet.load(paths["model.safetensors"], paths["config.json"])
    windows = torch.randn(2, RATE // 2)
    assert torch.equal(network(windows), network(windows))


def lists(folder, **parts):
    paths = []
    for part in ("train", "validation", "test"):
        lines = [f"{i.split('.')[0]}/{i}.wav" for i in parts[part]]
        paths.append(folder / f"{part}.txt")
        paths[-1].write_text("# an artist-aware list\n" + "\n".join(lines) + "\n\n")
    return paths


def ids(start, end):
    return [f"{genre}.{k:02d}" for genre in ("high", "low") for k in range(start, end)]


def test_lists_decide_the_split_and_leave_faults_out(corpus, tmp_path, capsys):
    paths = lists(tmp_path, train=ids(0, 10), validation=ids(10, 14), test=ids(14, 20))
    paths[2].write_text(paths[2].read_text() + "low/low.99.wav\n")
    fitted = fit(corpus, tmp_path, splits=paths)
    split = io.read_json(fitted["config.json"])["split"]
    assert split == {"train": ids(0, 10), "validation": ids(10, 14), "test": ids(14, 20)}
    report = io.read_json(fitted["metrics.json"])["metrics"][0]
    assert report["n"] == 12 and report["recipe"]["split"] == "lists"
    log = capsys.readouterr().out
    assert "1 of 13 clips are not in the corpus: ['low.99']" in log
    assert "8 of 48 clips are in no list and left out" in log


@pytest.mark.parametrize(
    ("test", "message"),
    [
        (ids(8, 14), r"test\.txt: high\.08 is in .*train\.txt as well"),
        (["high.20", "low.77"], r"test\.txt: has no clip of low that is in the corpus"),
    ],
)
def test_lists_that_leak_or_lack_a_genre_are_refused(corpus, tmp_path, test, message):
    paths = lists(tmp_path, train=ids(0, 10), validation=ids(14, 16), test=test)
    with pytest.raises(InputError, match=message):
        fit(corpus, tmp_path, splits=paths)
