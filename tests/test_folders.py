"""The command that measures folders of audio."""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import soundfile as sf

from conceptcaps import folders, io

SCRIPTS = Path(__file__).resolve().parent.parent / "workflow/scripts"
QUICK = ["--embedder", "logmel", "--window", "1", "--bootstraps", "20", "--controls", "4"]


def noise(n, seconds, seed, colour):
    """Return n clips of noise, smoothed over `colour` samples, each a little differently."""
    rng = np.random.default_rng(seed)
    clips = []
    for _ in range(n):
        width = colour + rng.integers(0, 3)
        white = rng.standard_normal(round(seconds * 22050) + width)
        clips.append(0.1 * np.convolve(white, np.ones(width) / width, "valid"))
    return clips


@pytest.fixture(scope="module")
def audio(tmp_path_factory):
    root = tmp_path_factory.mktemp("audio")
    for name, seed, colour in (("real", 0, 2), ("near", 1, 2), ("twin", 2, 2), ("far", 3, 8)):
        (root / name / "sub").mkdir(parents=True)
        for k, wave in enumerate(noise(24, 1.5, seed, colour)):
            suffix, rate = ("flac", 22050) if k % 2 else ("wav", 44100)
            place = root / name / "sub" if k % 3 else root / name
            both = np.stack([np.repeat(wave, rate // 22050)] * 2, axis=1)
            sf.write(place / f"{k:02d}.{suffix}", both, rate)
    (root / "near/bad.wav").write_bytes(b"RIFF")
    sf.write(root / "near/quiet.wav", np.zeros(5000), 22050)
    (root / "few").mkdir()
    for k, wave in enumerate(noise(3, 1.0, 0, 2)):
        sf.write(root / f"few/{k}.wav", wave, 22050)
    return root


def command(*arguments, cwd):
    environment = os.environ | {"PYTHONPATH": str(SCRIPTS), "OMP_NUM_THREADS": "1"}
    return subprocess.run(
        [sys.executable, "-m", "conceptcaps.frechet", *map(str, arguments)],
        cwd=cwd, env=environment, text=True, capture_output=True,
    )  # fmt: skip


def test_the_command_prints_a_table_and_writes_json(audio, tmp_path):
    done = command(
        audio / "real", audio / "near", audio / "far", *QUICK, "--json", tmp_path / "fad.json",
        cwd=audio,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    assert lines[0] == "reference  real: 24 clips"
    assert "near is nearer than far" in done.stdout
    assert "left out of near: 1 of 26 (bad.wav cannot be decoded" in done.stdout
    noted = "noted of near: 1 of 26 (quiet.wav 0.23 s: repeated to fill a window; silent)"
    assert noted in done.stdout
    assert not [line for line in lines if line.startswith("resamples")]  # progress is elsewhere
    found = io.read_json(tmp_path / "fad.json")
    fad = {name: metrics[0] for name, metrics in {**found["arms"], **found["controls"]}.items()}
    assert set(fad) == {"near", "far", "noise", "silence", "lowpass_11000", "lowpass_4000"}
    assert fad["near"]["value"] < fad["far"]["value"] < fad["silence"]["value"]
    assert fad["near"]["n"] == fad["far"]["n"] == 24
    assert found["arms"]["near"][2]["name"] == "fad_infinity"
    assert {row["id"]: row["status"] for row in found["files"]["near"]}["bad.wav"] == "corrupt"


def measured(*arguments, tmp_path):
    output = tmp_path / "fad.json"
    assert folders.main([*QUICK, *map(str, arguments), "--json", str(output)]) == 0
    return io.read_json(output)


def test_what_cannot_be_told_apart_is_not_ranked(audio, tmp_path, capsys):
    measured(audio / "real", audio / "twin", audio / "near", tmp_path=tmp_path)
    assert "twin and near are not separable" in capsys.readouterr().out


def test_the_cache_gives_the_same_figures_without_embedding(audio, tmp_path, monkeypatch):
    arguments = [audio / "real", audio / "far", "--cache", tmp_path / "cache"]
    first = measured(*arguments, tmp_path=tmp_path)
    assert sorted(p.name for p in (tmp_path / "cache").iterdir()) == ["far.parquet", "real.parquet"]
    embedded, original = [], folders.reference.embed_set

    def watched(embedder, sources, *, spec):
        embedded.append(len(sources))
        return original(embedder, sources, spec=spec)

    monkeypatch.setattr(folders.reference, "embed_set", watched)
    again = measured(*arguments, tmp_path=tmp_path)
    assert embedded == [0, 0]
    assert again["arms"] == first["arms"]
    assert {row["reason"] for row in again["files"]["far"]} == {"kept in the cache"}
    window = measured(*arguments, "--window", "1.5", tmp_path=tmp_path)  # another preprocessing
    assert embedded[2:] == [24, 24]
    assert window["arms"] != first["arms"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["real", "nowhere"], "nowhere is not a folder"),
        (["real", "few"], "few: 3 of 3 files can be embedded; at least 4 are needed"),
        (["real", "real"], "a folder is given twice"),
        (["real", "far", "--window", "100"], "at most 60"),
        (["real", "far", "--bootstraps", "0"], "bootstraps: 0; at least 1"),
        (["real", "far", "--config", "none.yaml"], "none.yaml: is not the workflow's config"),
        (["real", "far", "--embedder", "transformers"], "say which by --model"),
        (
            ["real", "far", "--embedder", "transformers", "--model", "nowhere"],
            "nowhere is not a directory with a model",
        ),
    ],
)
def test_mistakes_are_named(audio, monkeypatch, capsys, arguments, message):
    monkeypatch.chdir(audio)
    if "--embedder" not in arguments:
        arguments = [*arguments[:2], *QUICK, *arguments[2:]]
    assert folders.main(arguments) == 2
    assert message in capsys.readouterr().err


def test_help_says_what_the_figures_are(capsys):
    with pytest.raises(SystemExit):
        folders.main(["--help"])
    told = capsys.readouterr().out
    for word in ("REF_DIR", "floor", "FAD inf", "logmel", "--json", "95 % interval"):
        assert word in told
