"""CLAP scores on small real checkpoints of both formats."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from transformers import ClapModel

from conceptcaps import clap, clips, embeddings, io, mini_clap, schemas
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
        starts = {"cc-0": [0], "cc-1": [0, 4, 5], "cc-2": [0], "cc-3": [0, 4, 7]}  # seconds
        windows = [np.resize(wave[s * RATE : s * RATE + WINDOW], WINDOW) for s in starts[row["id"]]]
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


def test_embeddings_carry_a_key_of_audio_weights_and_preprocessing(tmp_path, spec, model):
    first = {row["id"]: row["embedding_key"] for row in scored(tmp_path, spec)}
    assert len(set(first.values())) == len(LENGTHS)
    again = scored(tmp_path, replace(spec, batch_size=5), ids=("cc-2", "cc-0"), name="again")
    assert {row["id"]: row["embedding_key"] for row in again}.items() <= first.items()
    embedder = clap.load_embedder(spec)
    key = embeddings.embedder_key(embedder, window_s=4.0)
    assert embeddings.embedder_key(clap.load_embedder(spec), window_s=4.0) == key
    assert embeddings.embedder_key(embedder, window_s=3.0) != key
    other = clap.load_embedder(spec)
    torch.nn.init.ones_(other.model.audio_projection.linear1.bias)
    assert embeddings.embedder_key(other, window_s=4.0) != key


def test_the_same_shard_gives_the_same_bytes(tmp_path, spec):
    scored(tmp_path, spec, name="a")
    scored(tmp_path, spec, name="b")
    assert (tmp_path / "a.parquet").read_bytes() == (tmp_path / "b.parquet").read_bytes()


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
        embeddings.embed_whole(
            embedder, [("a", tone(0, WINDOW))], where="x", window_s=4.0, batch_size=1
        )


def test_auc_by_hand():
    assert clap.auc(np.array([3.0, 1.0]), np.array([2.0, 1.0])) == pytest.approx(
        (1 + 1 + 0 + 0.5) / 4
    )
