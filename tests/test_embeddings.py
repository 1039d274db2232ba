"""Many clips through an embedder: order, batches, damage, keys."""

import threading

import numpy as np
import pytest
import soundfile as sf

from conceptcaps import clap, embedders, embeddings, reference
from conceptcaps.errors import InputError

RATE = embedders.LogMel.sampling_rate_hz
SPEC = clap.Spec("logmel", "", None, None, None, 1.0, 4)


def tone(seconds, seed, gain=0.3):
    rng = np.random.default_rng(seed)
    return (gain * rng.standard_normal(round(seconds * RATE))).astype(np.float32)


@pytest.fixture
def embedder():
    return embedders.LogMel()


def embed(embedder, clips, batch_size=4):
    return {
        clip.id: clip
        for clip in embeddings.embed_clips(embedder, clips, window_s=1.0, batch_size=batch_size)
    }


def test_the_interface_of_the_baseline(embedder):
    vectors = embedder.embed_audio([tone(1, 0), tone(1, 1)])
    assert vectors.shape == (2, embedder.dimension) and vectors.dtype == np.float32
    loud = embedder.embed_audio([10 * tone(1, 0)])[0]
    bands = embedder.bands
    np.testing.assert_allclose(loud[:bands] - vectors[0][:bands], np.log(100), atol=0.02)  # level
    np.testing.assert_allclose(loud[bands:], vectors[0][bands:], atol=0.02)  # not its variation


def test_order_and_batches_do_not_matter(embedder):
    clips = [(f"c{k}", tone(0.5 + k, k)) for k in range(6)]
    first = embed(embedder, clips)
    assert [len(clip.windows) for clip in first.values()] == [1, 2, 3, 4, 5, 6]
    for batch_size, given in ((1, clips), (7, clips[::-1])):
        other = embed(embedder, given, batch_size)
        assert list(other) == [name for name, _ in given]
        for name, clip in other.items():
            np.testing.assert_allclose(clip.windows, first[name].windows, atol=1e-5)


def test_the_same_file_twice_gives_the_same_bytes(embedder, tmp_path):
    sf.write(tmp_path / "a.wav", tone(3.3, 0), 44100)
    a, b = (embed(embedder, [("a", tmp_path / "a.wav")])["a"].windows for _ in range(2))
    assert a.tobytes() == b.tobytes()


def test_damaged_silent_and_short_clips_are_told(embedder, tmp_path):
    (tmp_path / "bad.wav").write_bytes(b"RIFF nothing")
    sf.write(tmp_path / "empty.wav", np.zeros(0), RATE)
    sf.write(tmp_path / "silent.wav", np.zeros(2 * RATE), RATE)
    sf.write(tmp_path / "short.wav", tone(0.2, 1), RATE)
    sf.write(tmp_path / "good.wav", tone(2, 2), RATE)
    names = ["good", "bad", "empty", "silent", "short"]
    found = embed(embedder, [(name, tmp_path / f"{name}.wav") for name in names])
    assert list(found) == names
    assert "cannot be decoded" in found["bad"].reason and found["bad"].windows is None
    assert found["empty"].reason == "holds no samples"
    assert found["silent"].notes == ("silent",) and len(found["silent"].windows) == 2
    assert found["short"].notes == ("0.20 s: repeated to fill a window",)
    assert found["good"].notes == () and found["good"].duration_s == 2.0
    statuses = [reference.fate(clip)["status"] for clip in found.values()]
    assert statuses == ["ok", "corrupt", "corrupt", "ok", "ok"]


def test_a_damaged_clip_of_a_table_is_named(embedder):
    with pytest.raises(InputError, match="here: clip b cannot be decoded"):
        embeddings.embed_whole(
            embedder, [("a", tone(1, 0)), ("b", b"?")], where="here", window_s=1.0, batch_size=4
        )


def test_decoding_runs_ahead_of_the_model_but_not_far(embedder):
    prepared, peak = [], []

    class Slow(embedders.LogMel):
        def prepare(self, window):
            prepared.append(threading.get_ident())
            return window

        def embed_prepared(self, batch):
            peak.append(len(prepared) - sum(peak_batches))
            peak_batches.append(len(batch))
            return super().embed_prepared(batch)

    peak_batches = []
    long = [(f"c{k}", tone(60, k)) for k in range(3)]
    found = embed(Slow(), long)
    assert [len(clip.windows) for clip in found.values()] == [60, 60, 60]
    assert threading.get_ident() not in prepared  # by other threads
    # two threads of at most 8 windows each, one in hand, and the batch itself
    assert max(peak) <= 2 * (embeddings._AHEAD + 1) + 4 + 1


def test_an_error_in_the_model_ends_the_decoders(embedder):
    class Broken(embedders.LogMel):
        def embed_prepared(self, batch):
            raise ValueError("model")

    before = threading.active_count()
    with pytest.raises(ValueError, match="model"):
        embed(Broken(), [(f"c{k}", tone(30, k)) for k in range(4)])
    assert threading.active_count() == before


def test_an_error_in_a_decoder_reaches_the_caller(embedder):
    class Broken(embedders.LogMel):
        def prepare(self, window):
            raise ZeroDivisionError("prepare")

    with pytest.raises(ZeroDivisionError, match="prepare"):
        embed(Broken(), [("a", tone(2, 0))])


def test_keys_are_of_content(embedder, tmp_path):
    (tmp_path / "a.wav").write_bytes(b"abc")
    (tmp_path / "b.wav").write_bytes(b"abc")
    key = embeddings.embedder_key(embedder, window_s=1.0)
    a, b = (embeddings.clip_key(tmp_path / name, key) for name in ("a.wav", "b.wav"))
    assert a == b == embeddings.clip_key(b"abc", key)
    assert embeddings.clip_key(b"abd", key) != a
    assert embeddings.clip_key(b"abc", embeddings.embedder_key(embedder, window_s=2.0)) != a


def test_mean_pairwise_cosine_by_hand():
    vectors = np.array([[1.0, 0], [0, 1], [0.6, 0.8]], np.float32)
    assert embeddings.mean_pairwise_cosine(vectors) == pytest.approx((0 + 0.6 + 0.8) / 3)


def test_pooling():
    vectors = np.array([[1.0, 0], [0, 1]])
    np.testing.assert_allclose(embeddings.pool(vectors), [0.5**0.5] * 2)
    np.testing.assert_allclose(embeddings.pool(vectors, unit_norm=False), [0.5, 0.5])
