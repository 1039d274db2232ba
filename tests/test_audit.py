"""The concept audit: rhythm of known clips, calibration, verdicts, the card, bad input."""

from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest

from conceptcaps import audit, calibration, clips, io, rhythm, schemas
from conceptcaps.categories import TAGS_OF
from conceptcaps.errors import InputError

RATE = 16000
SPEC = audit.Spec(
    prompt="The music is {tag}.",
    random_tags=3,
    tempo_bpm={"slow tempo": [0, 80], "fast tempo": [130, 400]},
    percussive_share={"no percussion": 0.2},
    labelled_clips=60,
    min_auc=0.7,
    min_present_prob=0.5,
)
TAXONOMY = {
    "genre": ["jazz", "rock", "hip hop"],
    "mood": ["calm"],
    "instrument": ["piano", "flute", "no percussion"],
    "tempo": ["slow tempo", "fast tempo"],
}
NAMES = [tag for group in TAXONOMY.values() for tag in group]


def clicks(bpm: float, seconds: float = 6.0) -> np.ndarray:
    wave, noise = np.zeros(round(seconds * RATE), np.float32), np.random.default_rng(0)
    for at in np.arange(0, seconds - 0.05, 60 / bpm):
        burst = noise.normal(0, 0.3, 400) * np.exp(-np.arange(400) / 60)
        wave[round(at * RATE) :][:400] += burst.astype(np.float32)
    return wave


def hum() -> np.ndarray:
    t = np.arange(6 * RATE) / RATE
    return (0.3 * sum(np.sin(2 * np.pi * f * t) for f in (220, 277, 330))).astype(np.float32)


@pytest.mark.parametrize("bpm", [72, 100, 144])
def test_the_beat_tracker_finds_the_tempo_or_its_double_or_half(bpm):
    found = rhythm.measure(clicks(bpm), sampling_rate_hz=RATE)
    off = (found.octaves - np.log2(bpm)) % 1
    assert min(off, 1 - off) < 0.08
    assert found.onset_rate == pytest.approx(bpm / 60, rel=0.2)


def test_clicks_are_percussive_and_a_hum_is_not():
    beat, tone = (rhythm.measure(wave, sampling_rate_hz=RATE) for wave in (clicks(120), hum()))
    assert beat.percussive_high > 0.8 > 0.2 > tone.percussive
    assert tone.onset_rate < 1


@pytest.mark.parametrize("wave", [np.zeros(RATE), np.zeros(10), np.full(3200, 0.1)])
def test_silent_and_short_clips_are_measured(wave):
    found = rhythm.table([rhythm.measure(wave.astype(np.float32), sampling_rate_hz=RATE)])
    assert found.shape == (1, 5) and np.isfinite(found).all()


def test_calibration_is_checked_on_other_folds_than_it_was_fitted_on():
    rng = np.random.default_rng(0)
    truth = rng.random(200) < 0.25
    noise = calibration.fit(rng.normal(size=(200, 8)), truth)
    assert abs(noise.quality["auc"] - 0.5) < 0.15
    x = rng.normal(size=(200, 2)) + 2.0 * truth[:, None]
    good = calibration.fit(x, truth)
    assert good.quality["auc"] > 0.9 and good.quality["n_with"] == truth.sum()
    middle = np.mean([x[truth].mean(0), x[~truth].mean(0)], axis=0)
    assert good.probability(middle[None])[0] == pytest.approx(0.5, abs=0.1)  # even odds
    assert calibration.fit(x, np.arange(200) < 9) is None  # too few to say anything


def test_what_the_verifier_misses_is_taken_out_of_the_datasets_figures():
    """Of 100 clips with the tag 60 hold it, of 300 without 30 do; recall 0.9, false alarms 0.2."""
    carried = np.arange(400) < 100
    heard = np.zeros(400)
    heard[: 54 + 8] = 1.0  # 0.9 of 60 and 0.2 of 40
    heard[100 : 100 + 27 + 54] = 1.0  # 0.9 of 30 and 0.2 of 270
    found = calibration.dataset_quality(heard, carried, {"recall": 0.9, "false_alarms": 0.2})
    assert (found["heard_with"], found["heard_without"]) == (0.62, 0.27)
    assert found["tag_precision"] == pytest.approx(0.6)
    assert found["tag_recall"] == pytest.approx(60 / 90)
    assert calibration.dataset_quality(heard, carried, {})["tag_precision"] is None
    heard[:50] = np.nan  # no verdict is not a verdict of absence
    assert calibration.dataset_quality(heard, carried, {})["heard_with"] == pytest.approx(12 / 50)
    assert calibration.dataset_quality(heard * np.nan, carried, {})["heard_with"] is None


def test_without_labels_half_and_double_tempo_and_silence_are_no_verdict():
    rhythms = np.zeros((4, 5))
    rhythms[1:, 0] = np.log2([75, 150, 100])
    fast = audit._uncalibrated("fast tempo", "tempo", rhythms, SPEC)
    slow = audit._uncalibrated("slow tempo", "tempo", rhythms, SPEC)
    assert np.isnan(fast[0]) and np.isnan(slow[0])
    assert 0.3 < fast[1] < 0.6 and 0.3 < slow[2] < 0.6  # tracked an octave off, perhaps
    assert fast[2] > 0.8 and slow[1] > 0.6
    assert 0.3 < fast[3] < 0.6 and 0.3 < slow[3] < 0.6


def test_tags_are_held_against_what_excludes_them_else_against_their_category():
    groups = audit._groups(TAXONOMY, [["jazz", "rock"], ["flute", "no percussion"]])
    assert groups["jazz"] == ["rock"]
    assert groups["hip hop"] == ["jazz", "rock"]
    assert groups["piano"] == ["flute", "no percussion"]
    assert audit._genre({"genre": "hiphop"}, NAMES) == ["hip hop"]


def test_verified_clips_hold_all_that_was_checked():
    probs = np.array([[0.9, 0.9], [0.9, 0.1], [0.9, 0.1], [0.9, np.nan]])
    carried = np.array([[1, 1], [1, 1], [1, 0], [0, 1]], bool)
    both, first = np.array([True, True]), np.array([True, False])
    assert audit._verified(probs, carried, both, 0.5).tolist() == [True, False, True, False]
    assert audit._verified(probs, carried, first, 0.5).tolist() == [True, True, True, False]


def rows_of(waves, tags, extra):
    for k, (wave, held) in enumerate(zip(waves, tags, strict=True)):
        data, _ = clips.encode_flac(wave, RATE, peak=1.0)
        row = {"id": f"{extra['kind']}-{k}", "audio": {"bytes": data, "path": None}}
        row |= {"sampling_rate": RATE, "duration_s": 6.0, "sha256": "", "aspect_list": held}
        yield row | extra


@pytest.fixture
def world(tmp_path, monkeypatch):
    """Clips whose embedding is the sum of their tags' text embeddings, and noise."""
    rng = np.random.default_rng(0)
    text = np.linalg.qr(rng.normal(size=(16, 16)))[0][: len(NAMES)]
    monkeypatch.setattr(audit.clap, "load_embedder", lambda spec: SimpleNamespace())
    monkeypatch.setattr(audit.embeddings, "embed_texts", lambda *_, **__: (text, None))
    pool = [
        (clicks(bpm, 2.0), [*held, tempo])
        for bpm, tempo in ((60, "slow tempo"), (180, "fast tempo"))
        for held in (["jazz", "piano"], ["rock", "calm"], ["jazz", "flute"])
    ]
    embeddings = []
    for kind, count in (("codec", 60), ("ours", 12)):
        waves, tags = zip(*(pool[k % 6] for k in range(count)), strict=True)
        rows = list(rows_of(waves, tags, {"kind": kind, "caption": ""}))
        io.write_table(tmp_path / f"{kind}.parquet", rows, schemas.MINIATURE)
        for row in rows:
            vector = text[[NAMES.index(tag) for tag in row["aspect_list"]]].sum(0)
            vector = vector + rng.normal(0, 0.03, 16)
            embeddings.append({"id": row["id"], "audio_embedding": vector / np.linalg.norm(vector)})
    io.write_table(tmp_path / "embeddings.parquet", embeddings, schemas.EMBEDDINGS)
    claimed = [dict(row) for row in rows]
    claimed[0]["aspect_list"] = ["hip hop", "piano", "slow tempo"]  # it plays jazz
    claimed[1]["aspect_list"] = ["rock", "calm", "fast tempo"]  # it is slow
    io.write_table(
        tmp_path / "tags.parquet",
        [
            {"id": row["id"], "aspect_list": row["aspect_list"], "given": [], "seed": 0}
            | {
                TAGS_OF[category]: [t for t in row["aspect_list"] if t in members]
                for category, members in TAXONOMY.items()
            }
            for row in claimed
        ],
        schemas.TAGS,
    )
    io.write_json(tmp_path / "taxonomy.json", TAXONOMY)
    return {
        "tags": tmp_path / "tags.parquet",
        "taxonomy": tmp_path / "taxonomy.json",
        "exclusive": [["jazz", "rock", "hip hop"]],
        "audio": [tmp_path / "ours.parquet"],
        "scored": [tmp_path / "embeddings.parquet"],
        "labelled": tmp_path / "codec.parquet",
        "reference": tmp_path / "embeddings.parquet",
        "clap_spec": SimpleNamespace(batch_size=8, window_s=2.0),
        "spec": SPEC,
        "seed": 1,
        "output": tmp_path / "audit.parquet",
        "metrics": tmp_path / "audit.json",
    }


def test_clips_that_hold_their_tags_are_verified_and_others_are_not(world):
    audit.audit(**world)
    rows = io.read_rows(world["output"])
    assert [row["verified"] for row in rows] == [True, False, *[True] * 10]
    assert rows[1]["tempo_present_prob"][0] < 0.5 < rows[1]["genre_present_prob"][0]
    content = io.read_json(world["metrics"])
    cards = content["tags"]
    assert cards["jazz"]["method"] == "clap" and cards["jazz"]["auc"] > 0.95
    assert cards["fast tempo"]["method"] == "tempo" and cards["fast tempo"]["auc"] > 0.95
    # No labelled clip is hip hop, and what was learned of some tags fails on others: no verdict.
    assert not cards["hip hop"]["calibrated"] and not cards["hip hop"]["judged"]
    assert 0.4 < content["pool_auc"] < SPEC.min_auc
    assert rows[0]["genre_present_prob"] == [None]
    assert cards["rock"]["tag_precision"] == pytest.approx(1.0, abs=0.1)
    shares = {metric["name"]: metric["value"] for metric in content["metrics"]}
    assert shares["verified_share"] == pytest.approx(11 / 12)
    before = world["output"].read_bytes(), world["metrics"].read_bytes()
    audit.audit(**world)
    assert (world["output"].read_bytes(), world["metrics"].read_bytes()) == before


def test_clips_without_tags_or_without_embeddings_are_named(world, tmp_path):
    io.write_table(tmp_path / "none.parquet", [], schemas.EMBEDDINGS)
    with pytest.raises(InputError, match="no clip has audio and a CLAP embedding"):
        audit.audit(**world | {"scored": [tmp_path / "none.parquet"]})
    io.write_table(world["tags"], io.read_rows(world["tags"])[1:], schemas.TAGS)
    with pytest.raises(InputError, match="clip ours-0 has no tags"):
        audit.audit(**world)
    io.write_table(world["labelled"], [], schemas.MINIATURE)
    with pytest.raises(InputError, match="holds no labelled clips"):
        audit.audit(**world)


def test_a_pool_that_is_good_enough_judges_but_does_not_verify(world):
    world["spec"] = replace(SPEC, min_auc=0.5)
    audit.audit(**world)
    card = io.read_json(world["metrics"])["tags"]["hip hop"]
    assert card["judged"] and not card["calibrated"]
    assert io.read_rows(world["output"])[0]["genre_present_prob"][0] < 0.5
