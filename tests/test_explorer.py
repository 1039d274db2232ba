"""The explorer's data: marks of captions, spectrograms, what is written and what is refused."""

import io
import json

import numpy as np
import pytest
from explorer_run import COMPARED, ITEMS, export
from PIL import Image

from conceptcaps import explorer, spectrogram
from conceptcaps.errors import InputError
from conceptcaps.mentions import Mentions

FINDER = Mentions(["guitar", "acoustic guitar", "piano", "drums", "no drums"], {"piano": ["keys"]})


def marks(text, *tags):
    found = explorer.mark(text, list(tags), FINDER, FINDER.find(text))
    units = text.encode("utf-16-le")  # offsets are the browser's
    return [(units[2 * a : 2 * b].decode("utf-16-le"), kind, tag) for a, b, kind, tag in found]


def test_marks_say_what_is_named_extra_and_denied():
    named, extra, denied = explorer.NAMED, explorer.EXTRA, explorer.DENIED
    text = "Keys and an Acoustic Guitar, without drums."
    assert marks("There is no piano, no keys.", "piano") == [
        ("piano", denied, "piano"),
        ("keys", denied, "piano"),
    ]
    assert marks(text, "guitar") == [
        ("Keys", extra, "piano"),
        ("Acoustic ", extra, "acoustic guitar"),
        ("Guitar", named, "guitar"),
        ("drums", extra, "no drums"),
    ]
    assert marks("\U0001f3b5 a piano", "piano") == [("piano", named, "piano")]
    assert marks("Nothing of it", "piano") == []


def test_a_tone_is_a_line_at_its_height():
    rate, height = 16_000, 96
    for hz in (500, 2000, 6000):
        wave = np.sin(2 * np.pi * hz * np.arange(2 * rate) / rate).astype(np.float32)
        data = spectrogram.draw(wave, rate, width=50, height=height)
        picture = np.asarray(Image.open(io.BytesIO(data)).convert("L"), float)
        assert picture.shape == (height, 50)
        mel = np.log10(1 + hz / 700) / np.log10(1 + rate / 2 / 700)
        row = picture[:, 10:40].mean(axis=1).argmax()
        assert abs((height - 1 - row) / (height - 1) - mel) < 0.03
    assert spectrogram.draw(np.zeros(100, np.float32), rate, width=9, height=8)  # silence, short


def test_the_folder_holds_every_clip_and_the_index_agrees(tmp_path):
    folder = export(tmp_path)
    text = (folder / "data/run.js").read_text()
    run = json.loads(text.removeprefix("window.conceptcaps=").rstrip(";\n"))
    assert len(run["ids"]) == ITEMS and set(run["split"]) == {0, 1, 2}
    assert sum(score is not None for score in run["scores"]["base"]) == COMPARED
    details = []
    for k, path in enumerate(sorted((folder / "data/clips").iterdir())):
        details += json.loads(path.read_text()[len(f"conceptcaps.receive({k},") : -3])
    assert [entry["id"][:8] for entry in details] == [item[:8] for item in run["ids"]]
    clips = [(arm, clip, d["id"]) for d in details for arm, clip in d["arms"].items()]
    assert len(clips) == ITEMS + COMPARED == len(list(folder.rglob("*.flac")))
    for _, clip, item in clips:
        assert (folder / f"audio/{clip['at']}/{item}.webp").is_file()
    few = export(tmp_path / "few", clips_per_arm=7)
    assert len(list(few.rglob("*.flac"))) == 14


def test_a_clip_without_audio_is_refused(tmp_path):
    with pytest.raises(InputError, match="60 clips of arm conceptcaps are in none"):
        arms = {"conceptcaps": explorer.Arm([], [], [])}
        export(tmp_path, arms=arms)


def test_ids_are_shortened_as_far_as_they_differ():
    assert explorer.shortened(["a" * 20, "b" * 20]) == ["a" * 8, "b" * 8]
    assert explorer.shortened(["a" * 9 + "x", "a" * 9 + "y"]) == ["a" * 9 + "x", "a" * 9 + "y"]
