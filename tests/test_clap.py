"""CLAP scores on small real checkpoints of both formats."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from transformers import ClapModel

from conceptcaps import clap, clips, embedders, io, mini_clap, schemas
from conceptcaps.errors import InputError

SCRIPTS = Path(__file__).resolve().parent.parent / "workflow/scripts"
RATE, WINDOW = 16000, 64000  # samples a second, samples a window (4 s)
WORLD = {"clip_s": 4.0, "sampling_rate_hz": RATE}


@pytest.fixture(scope="session")
def model(tmp_path_factory):
    """An untrained miniature CLAP with its processor."""
    torch.set_num_threads(1)  # two spinning threads are 20 times slower on a busy machine
    torch.manual_seed(0)
    path = tmp_path_factory.mktemp("clap")
    processor = mini_clap.build_processor(WORLD, seed=1)
    ClapModel(mini_clap.build_config(processor.tokenizer)).eval().save_pretrained(path)
    processor.save_pretrained(path)
    return str(path)


@pytest.fixture
def spec(model):
    return clap.Spec(
        backend="transformers",
        model=model,
        revision=None,
        checkpoint=None,
        architecture=None,
        window_s=4.0,
        batch_size=3,
    )


def tone(i, samples):
    rng = np.random.default_rng(i)
    wave = np.sin(2 * np.pi * 110 * 2 ** (i / 5) * np.arange(samples) / RATE)
    return (0.3 * wave + 0.02 * rng.standard_normal(samples)).astype(np.float32)


LENGTHS = {"cc-0": 4.0, "cc-1": 9.0, "cc-2": 1.5, "cc-3": 11.0}  # seconds
TEXTS = {
    "cc-0": "a slow jazz piece with piano",
    "cc-1": "a fast metal song with drums",
    "cc-2": "a calm track",
    "cc-3": "a disco song with strings and claps " * 15,  # more than 77 tokens
}


def write_audio(path, ids, schema=schemas.AUDIO, rate=RATE):
    rows = []
    for id_ in ids:
        samples = round(LENGTHS[id_] * rate)
        data, gain = clips.encode_flac(tone(int(id_[-1]), samples), rate, peak=0.9)
        row = dict.fromkeys(schema.names) | {
            "id": id_,
            "audio": {"bytes": data, "path": None},
            "sampling_rate": rate,
            "duration_s": samples / rate,
        }
        rows.append(row | ({"gain_db": gain} if "gain_db" in schema.names else {}))
    io.write_table(path, rows, schema)
    return path


def write_captions(path, texts=TEXTS):
    rows = [
        dict.fromkeys(schemas.CAPTIONS.names) | {"id": i, "caption": t} for i, t in texts.items()
    ]
    io.write_table(path, rows, schemas.CAPTIONS)
    return path


def scored(tmp_path, spec, *, ids=tuple(LENGTHS), name="scores"):
    output = tmp_path / f"{name}.parquet"
    clap.score_shard(
        audio=write_audio(tmp_path / f"{name}-audio.parquet", ids),
        captions=write_captions(tmp_path / "captions.parquet"),
        spec=spec,
        output=output,
    )
    assert io.read_table(output).schema.equals(schemas.CLAP)
    return io.read_rows(output)


@pytest.mark.parametrize(
    ("samples", "expected"),
    [
        (10, ["0123456789"]),
        (20, ["0123456789", "0123456789"]),
        (14, ["0123456789"]),  # 4 of 10 left: dropped
        (15, ["0123456789", "0123401234"]),  # half a window left: repeated
        (18, ["0123456789", "0123456701"]),
        (4, ["0123012301"]),  # all there is: repeated, however short
        (1, ["0000000000"]),
    ],
)
def test_windows(samples, expected):
    wave = np.arange(samples) % 10
    windows = clap.embedders.cut_windows(wave, size=10)
    assert ["".join(map(str, window)) for window in windows] == expected


def test_scores_are_the_cosines_of_window_embeddings(tmp_path, spec):
    rows = scored(tmp_path, spec)
    assert [row["id"] for row in rows] == list(LENGTHS)
    assert [row["text_truncated"] for row in rows] == [False, False, False, True]
    embedder = clap.load_embedder(spec)
    for row in rows:
        # What the clip is after its 16-bit FLAC.
        data, _ = clips.encode_flac(
            tone(int(row["id"][-1]), round(LENGTHS[row["id"]] * RATE)), RATE, peak=0.9
        )
        wave, _ = clips.decode(data)
        starts = {"cc-0": [0], "cc-1": [0, WINDOW], "cc-2": [0], "cc-3": [0, WINDOW, 2 * WINDOW]}
        windows = [np.resize(wave[s : s + WINDOW], WINDOW) for s in starts[row["id"]]]
        if row["id"] == "cc-1":  # its last second is less than half a window
            assert len(wave) == 9 * RATE
        vectors = embedder.embed_audio(windows)
        (text,), _ = embedder.embed_text([TEXTS[row["id"]]])
        mean = vectors.mean(0) / np.linalg.norm(vectors.mean(0))
        np.testing.assert_allclose(row["audio_embedding"], mean, atol=1e-5)
        np.testing.assert_allclose(row["text_embedding"], text, atol=1e-5)
        assert row["clap_score"] == pytest.approx(float(mean @ text), abs=1e-5)
        assert row["clap_min"] == pytest.approx(float((vectors @ text).min()), abs=1e-5)
        assert row["clap_max"] == pytest.approx(float((vectors @ text).max()), abs=1e-5)
        assert np.linalg.norm(row["audio_embedding"]) == pytest.approx(1, abs=1e-5)


def test_scores_do_not_depend_on_order_or_batches(tmp_path, spec):
    first = {row["id"]: row for row in scored(tmp_path, spec)}
    other = scored(tmp_path, replace(spec, batch_size=5), ids=tuple(LENGTHS)[::-1], name="other")
    assert [row["id"] for row in other] == list(LENGTHS)[::-1]
    for row in other:
        for column in ("clap_score", "clap_min", "audio_embedding", "text_embedding"):
            np.testing.assert_allclose(row[column], first[row["id"]][column], atol=1e-5)


def test_embedder_agrees_with_the_model_and_resamples(tmp_path, spec, model):
    embedder = clap.load_embedder(spec)
    assert (embedder.sampling_rate_hz, embedder.window_s) == (RATE, 4.0)
    network = ClapModel.from_pretrained(model).eval()
    wave = tone(0, WINDOW)
    features = embedder.extractor(wave, sampling_rate=RATE, return_tensors="pt")
    with torch.no_grad():
        expected = network.get_audio_features(**features).pooler_output[0]
    np.testing.assert_allclose(embedder.embed_audio([wave])[0], expected, atol=1e-5)


def test_no_clips(tmp_path, spec):
    assert scored(tmp_path, replace(spec, model="nowhere"), ids=()) == []


def test_a_clip_without_caption_is_named(tmp_path, spec):
    audio = write_audio(tmp_path / "audio.parquet", ["cc-0", "cc-2"])
    captions = write_captions(tmp_path / "captions.parquet", {"cc-0": "jazz"})
    with pytest.raises(InputError, match=r"captions\.parquet: no caption for clip cc-2"):
        clap.score_shard(audio=audio, captions=captions, spec=spec, output=tmp_path / "out.parquet")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"model": "nowhere"}, r"scores\.clap\.model: nowhere is not a directory with a model"),
        (
            {"model": "no/model", "revision": "main"},
            r"scores\.clap\.model: no/model .*cannot be loaded",
        ),
        ({"window_s": 10.0}, r"scores\.clap\.window_s: 10\.0 s, but .* at most 4\.0 s"),
        (
            {"backend": "laion_clap", "model": "nowhere", "checkpoint": "music.pt"},
            r"scores\.clap\.checkpoint: there is no file nowhere/music\.pt",
        ),
    ],
)
def test_bad_settings_are_named(spec, change, message):
    with pytest.raises(InputError, match=message):
        clap.load_embedder(replace(spec, **change))


def test_a_missing_tokenizer_is_named(tmp_path, spec, model):
    for file in Path(model).iterdir():
        if "tokenizer" not in file.name:
            (tmp_path / file.name).write_bytes(file.read_bytes())
    with pytest.raises(InputError, match="tokenizer"):
        clap.load_embedder(replace(spec, model=str(tmp_path)))


def test_a_broken_checkpoint_is_refused(spec):
    embedder = clap.load_embedder(spec)
    torch.nn.init.constant_(embedder.model.audio_projection.linear1.weight, torch.nan)
    with pytest.raises(InputError, match="audio embeddings are not finite"):
        embedders.embed_waves(embedder, [tone(0, WINDOW)], clips=1, window_s=4.0, batch_size=1)


def test_a_collapsed_text_tower_is_reported(spec, capsys):
    embedder = clap.load_embedder(spec)
    embedders.embed_texts(embedder, list(TEXTS.values()), batch_size=2)
    torch.nn.init.zeros_(embedder.model.text_projection.linear2.weight)
    torch.nn.init.ones_(embedder.model.text_projection.linear2.bias)
    capsys.readouterr()
    embedders.embed_texts(embedder, list(TEXTS.values()), batch_size=2)
    log = capsys.readouterr().out
    assert "mean pairwise cosine of 4 captions: 1.0000" in log
    assert "collapsed" in log


def test_mean_pairwise_cosine_by_hand():
    vectors = np.array([[1.0, 0], [0, 1], [0.6, 0.8]], np.float32)
    assert embedders.mean_pairwise_cosine(vectors) == pytest.approx((0 + 0.6 + 0.8) / 3)


def test_reference_and_controls(tmp_path, spec):
    table = write_audio(tmp_path / "gtzan.parquet", list(LENGTHS), schemas.GENRE_CLIPS, rate=22050)

    def embed(output, controls, seed=1):
        clap.embed_reference(
            clips=table, controls=3, spec=spec, seed=seed, output=output, controls_output=controls
        )
        return io.read_rows(output), io.read_rows(controls)

    rows, controls = embed(tmp_path / "a.parquet", tmp_path / "b.parquet")
    assert [row["id"] for row in rows] == list(LENGTHS)
    names = ["noise-0000", "noise-0001", "noise-0002"]
    assert [row["id"] for row in controls] == [
        *names,
        *(n.replace("noise", "silence") for n in names),
    ]
    noise, silence = np.split(np.array([row["audio_embedding"] for row in controls]), 2)
    assert (silence == silence[0]).all()
    assert len(np.unique(noise, axis=0)) == 3
    assert max(noise @ silence[0]) < 1 - 1e-5  # told apart, even untrained
    np.testing.assert_allclose(np.linalg.norm(noise, axis=1), 1, atol=1e-5)
    _, again = embed(tmp_path / "c.parquet", tmp_path / "d.parquet", seed=2)
    assert again[0]["audio_embedding"] != controls[0]["audio_embedding"]
    assert again[3]["audio_embedding"] == controls[3]["audio_embedding"]


def unit(x):
    return x / np.linalg.norm(x, axis=1, keepdims=True)


def write_scores(path, audio, text, start=0):
    rows = [
        dict.fromkeys(schemas.CLAP.names)
        | {"id": f"cc-{start + i:04d}", "audio_embedding": a, "text_embedding": t}
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


def summary(arms, spec, output):
    clap.summarise(shards=arms, spec=spec, seed=3, output=output)
    found = io.read_json(output)["arms"]
    return {arm: {metric["name"]: metric for metric in metrics} for arm, metrics in found.items()}


def test_summary_tells_matched_from_shuffled(tmp_path, arms, spec):
    found = summary(arms, spec, tmp_path / "clap.json")
    good, noise = found["good"], found["noise"]
    names = ["clap_score", "clap_shuffled", "clap_auc", "retrieval_r1", "retrieval_r10"]
    assert list(good) == names
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
    assert clap.retrieval_ranks(audio, text).tolist() == [1, 2, 2]  # a tie counts against


def test_auc_by_hand():
    assert clap.auc(np.array([3.0, 1.0]), np.array([2.0, 1.0])) == pytest.approx(
        (1 + 1 + 0 + 0.5) / 4
    )
