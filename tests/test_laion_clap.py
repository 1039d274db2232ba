"""The laion_clap backend on checkpoints in laion_clap's own format."""

import pytest
from conftest import findings


@pytest.fixture(scope="module")
def laion(tmp_path_factory):
    return findings("laion_checkpoints.py", tmp_path_factory.mktemp("laion"))


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
