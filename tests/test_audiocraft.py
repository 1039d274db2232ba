"""The audiocraft backend and the two checkpoint formats, on a small real checkpoint."""

import pytest
from conftest import findings


@pytest.fixture(scope="module")
def found(tmp_path_factory):
    return findings("audiocraft_checkpoints.py", tmp_path_factory.mktemp("audiocraft"))


@pytest.fixture(params=["mono", "stereo"])
def kind(request, found):
    return found[request.param] | {"kind": request.param}


def test_a_checkpoint_survives_both_conversions(kind):
    assert kind["same_keys"] and kind["round_trip"] and kind["same_codec"]
    assert kind["start"] == 32
    assert kind["channels"] == {"mono": 1, "stereo": 2}[kind["kind"]]


def test_audiocraft_plays_the_tokens_of_the_engine(kind):
    assert kind["rate"] == [8000, 8000] and kind["frames"] == [50, 50]
    for guidance in (1.0, 3.3):
        for temperature in (0.0, 1.2):
            assert kind[f"same_codes {guidance} {temperature}"], (guidance, temperature)
            assert kind[f"whole {guidance} {temperature}"]
    shape, difference = kind["waves"]
    assert shape == [4, kind["channels"], 1600] and difference < 1e-5


def test_a_clip_of_audiocraft_does_not_depend_on_its_neighbours(kind):
    assert kind["same_alone"] and kind["distinct"] == 4


@pytest.mark.parametrize(
    ("case", "said"),
    [
        ("long", "audio.duration_s: 31.0 s, but"),
        ("empty", "cannot be loaded by audiocraft"),
        ("trap", "cannot be loaded by audiocraft"),
        ("text", "its T5EncoderModel is not that of t5-base"),
        ("codec", "facebook/encodec_32khz: cannot be loaded as EncodecModel"),
        ("missing", "1 differ, and there is no out_norm.bias"),
        ("left_over", "1 differ, and there is linears.0.bias"),
        ("size", "size mismatch for model.decoder.layer_norm.bias"),
        ("not_one", "cannot be loaded as MusicgenForConditionalGeneration"),
    ],
)
def test_what_does_not_fit_is_named(found, case, said):
    assert said in found["refused"][case]
    assert not found["left"]
