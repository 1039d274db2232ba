"""The laion_clap backend on checkpoints in laion_clap's own format."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).resolve().parent / "laion_checkpoints.py"
SCRIPTS = SCRIPT.parent.parent / "workflow/scripts"


@pytest.fixture(scope="module")
def laion(tmp_path_factory):
    root = tmp_path_factory.mktemp("laion")
    environment = os.environ | {
        "HF_HOME": str(root),
        "HF_HUB_CACHE": str(root / "hub"),
        "PYTHONPATH": str(SCRIPTS),
        "OMP_NUM_THREADS": "1",
    }
    done = subprocess.run(
        [sys.executable, str(SCRIPT), str(root)], env=environment, text=True, capture_output=True
    )
    assert done.returncode == 0, done.stderr[-3000:]
    assert "unpickled" not in done.stdout
    return json.loads(done.stdout.split("RESULT")[1])


def test_laion_checkpoints_load_and_embed_as_the_module_does(laion):
    assert (laion["rate"], laion["window_s"]) == (48000, 10.0)
    assert laion["audio"] < 1e-5
    assert laion["text"] < 1e-5
    assert laion["norms"] == pytest.approx([1] * 4, abs=1e-5)
    assert laion["cut"] == [False, True]


def test_laion_checkpoints_that_do_not_fit_are_named(laion):
    assert "is not a file of weights" in laion["refused"]["trap.pt"]  # nothing was executed
    assert "does not fit architecture HTSAT-tiny" in laion["refused"]["other.pt"]
    assert "no 'HTSAT-smal'. Did you mean 'HTSAT-" in laion["refused"]["music.pt"]
