"""The zoo's checksums, and the zoo that is committed."""

import hashlib
import subprocess

import pytest
from conftest import ROOT

from conceptcaps import zoo
from conceptcaps.errors import InputError
from conceptcaps.io import read_json

ZOO = ROOT / "resources/mini/models"
NAMES = ("llama", "codec", "musicgen", "clap", "roberta", "gpt2", "judge")


@pytest.fixture
def small(tmp_path):
    for name in ("b/model.safetensors", "b/README.md", "a/config.json", "a/.snakemake_timestamp"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(name)
    zoo.write_checksums([tmp_path / "b", tmp_path / "a"], tmp_path / zoo.CHECKSUMS)
    return tmp_path


def test_the_list_is_sorted_and_sha256sum_reads_it(small):
    lines = (small / zoo.CHECKSUMS).read_text().splitlines()
    assert [line.split("  ")[1] for line in lines] == [
        "a/config.json",
        "b/README.md",
        "b/model.safetensors",
    ]
    assert lines[0].split("  ")[0] == hashlib.sha256(b"a/config.json").hexdigest()
    subprocess.run(["sha256sum", "--check", "--strict", zoo.CHECKSUMS], cwd=small, check=True)
    zoo.check(small)


def test_every_difference_is_named(small):
    (small / "b/model.safetensors").write_text("other")
    (small / "b/README.md").unlink()
    (small / "a/more.json").write_text("{}")
    with pytest.raises(InputError) as error:
        zoo.check(small)
    for part in ("b/README.md is missing", "a/more.json is not", "b/model.safetensors has changed"):
        assert part in str(error.value)
    assert "a/config.json" not in str(error.value)


@pytest.mark.parametrize("text", [None, "one word\n"])
def test_no_list_is_said_so(small, text):
    (small / zoo.CHECKSUMS).unlink()
    if text:
        (small / zoo.CHECKSUMS).write_text(text)
    with pytest.raises(InputError, match="cannot be read as a list of checksums"):
        zoo.check(small)


def test_the_committed_zoo_is_whole_and_small():
    zoo.check(ZOO)
    size = sum(path.stat().st_size for path in ZOO.rglob("*") if path.is_file())
    assert size <= 25_000_000  # bytes: every clone carries it


@pytest.mark.parametrize("name", NAMES)
def test_every_committed_model_has_its_card_and_its_record(name):
    card = (ZOO / name / "README.md").read_text()
    assert card.startswith("---\nlicense: mit\n") and f"# {name}, in miniature" in card
    training = read_json(ZOO / name / "training.json")
    assert training["loss_last"] < training["loss_first"] and training["quality"]
    assert (ZOO / name / "model.safetensors").is_file()


def test_the_zoo_holds_these_models():
    assert sorted(path.name for path in ZOO.iterdir() if path.is_dir()) == sorted(NAMES)
