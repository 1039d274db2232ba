"""The audiocraft backend and the two checkpoint formats, on a small real checkpoint."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).resolve().parent / "audiocraft_checkpoints.py"
ROOT = SCRIPT.parent.parent


@pytest.fixture(scope="module")
def found(tmp_path_factory):
    root = tmp_path_factory.mktemp("audiocraft")
    environment = os.environ | {
        "HF_HOME": str(root),
        "HF_HUB_CACHE": str(root / "hub"),
        "PYTHONPATH": os.pathsep.join([str(ROOT / "workflow/scripts"), str(SCRIPT.parent)]),
        "OMP_NUM_THREADS": "1",
    }
    done = subprocess.run(
        [sys.executable, str(SCRIPT), str(root)],
        env=environment, text=True, capture_output=True, cwd=ROOT,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-3000:]
    assert "unpickled" not in done.stdout
    return json.loads(done.stdout.split("RESULT")[1])


def test_a_checkpoint_survives_both_conversions(found):
    assert found["same_keys"] and found["round_trip"]
    assert found["start"] == 32


def test_audiocraft_plays_the_tokens_of_the_engine(found):
    assert found["rate"] == [8000, 8000] and found["frames"] == [50, 50]
    for guidance in (1.0, 3.3):
        for temperature in (0.0, 1.2):
            assert found[f"same_codes {guidance} {temperature}"], (guidance, temperature)
            assert found[f"whole {guidance} {temperature}"]
    shape, difference = found["waves"]
    assert shape == [4, 1, 1600] and difference < 1e-5


def test_a_clip_of_audiocraft_does_not_depend_on_its_neighbours(found):
    assert found["same_alone"] and found["distinct"] == 4


@pytest.mark.parametrize(
    ("case", "said"),
    [
        ("long", "audio.duration_s: 31.0 s, but"),
        ("empty", "cannot be loaded by audiocraft"),
        ("trap", "cannot be loaded by audiocraft"),
        ("text", "its T5EncoderModel is not that of t5-base"),
        ("codec", "facebook/encodec_32khz: cannot be loaded as EncodecModel"),
        ("not_one", "state_dict.bin: is not a file of an audiocraft checkpoint"),
    ],
)
def test_what_does_not_fit_is_named(found, case, said):
    assert said in found["refused"][case]
    assert not found["left"]
