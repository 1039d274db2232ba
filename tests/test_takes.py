"""Takes of a clip: retries, duplicates, their account; faults of disk and sidecar; one again."""

import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest
import tiny_models
import torch
import yaml
from test_musicgen import CAPTIONS, NO_LIMITS, SCRIPTS, audio_of, play, takes_of

from conceptcaps import clips, io, musicgen, regenerate, seeding, takes
from conceptcaps.errors import InputError


@pytest.fixture
def spec():
    return musicgen.Spec(
        backend="engine", model=tiny_models.musicgen(), revision=None, dtype="float32",
        duration_s=0.1, guidance_scale=3.0, temperature=1.0, top_k=0, batch_size=2,
        level_dbfs=-20.0, peak_dbfs=-1.0, quality=NO_LIMITS, min_yield=0.0,
    )  # fmt: skip


def tight(spec, **changes):
    return replace(spec, quality=replace(spec.quality, **changes))


def rows_of(path):
    return {row["id"]: row for row in io.read_rows(path)}


def test_an_unfit_clip_is_played_again_with_another_seed(tmp_path, spec):
    first, _ = play(tmp_path, spec, name="first")
    measured = io.read_rows(takes_of(first))
    assert all(row["attempt"] == 0 and row["status"] == "ok" for row in measured)
    median = float(np.median([row["bandwidth_hz"] for row in measured]))
    strict = tight(spec, takes=4, min_bandwidth_hz=median)
    output, ledger = play(tmp_path, strict, name="strict")
    played = io.read_rows(takes_of(output))
    account, kept = rows_of(ledger), rows_of(output)
    dull = {row["id"] for row in measured if row["bandwidth_hz"] < median}
    assert dull and {row["id"] for row in played if row["attempt"] == 1} == dull
    for row in played:  # one clip, one seed, and the measures of every take
        stage = "audio/base" + (f"/{row['attempt']}" if row["attempt"] else "")
        assert row["seed"] == seeding.item_seed(7, stage, row["id"])
        assert (row["status"] == "ok") == (row["bandwidth_hz"] >= median)
    saved = [row for row in played if row["attempt"] and row["status"] == "ok"]
    assert saved
    for row in saved:
        assert kept[row["id"]]["seed"] == row["seed"] and account[row["id"]]["status"] == "ok"
        assert kept[row["id"]]["codes_sha256"] == row["codes_sha256"]
    assert list(kept) == [id_ for id_, _ in CAPTIONS if account[id_]["status"] == "ok"]
    assert all(audio_of(first)[id_] == data for id_, data in audio_of(output).items()
               if id_ not in dull)  # fmt: skip


def test_a_clip_that_is_never_fit_is_lost_with_the_last_reason(tmp_path, spec):
    output, ledger = play(tmp_path, tight(spec, takes=2, max_lufs=-200.0))
    row = rows_of(ledger)["cc-0"]
    assert row["status"] == "loud"
    assert (
        row["reason"].startswith("none of 2 takes is fit; the last: ") and "LUFS" in row["reason"]
    )
    assert len(io.read_rows(takes_of(output))) == 10 and not rows_of(output)
    with pytest.raises(InputError, match=r"6 of 6 items were lost .*below min_yield 0.5"):
        play(tmp_path, replace(tight(spec, max_lufs=-200.0), min_yield=0.5), name="failed")


def test_exact_duplicates_are_lost(tmp_path, spec):
    """Greedy: the same caption gives the same codes, and another take would, too."""
    output, ledger = play(tmp_path, replace(tight(spec, takes=3), temperature=0.0))
    account = rows_of(ledger)
    assert account["cc-0"]["status"] == "ok"
    assert account["cc-5"]["status"] == "duplicate"
    assert account["cc-5"]["reason"] == "the same codes as clip cc-0"
    assert len(io.read_rows(takes_of(output))) == 5  # no second take without chance
    assert "cc-5" not in rows_of(output)


def test_rounds_resume_to_the_same_bytes(tmp_path, spec, capsys, monkeypatch):
    measured = io.read_rows(takes_of(play(tmp_path, spec)[0]))
    median = float(np.median([row["bandwidth_hz"] for row in measured]))
    strict = tight(spec, takes=3, min_bandwidth_hz=median)
    whole, ledger = play(tmp_path, strict, name="whole")
    finish = takes._Player._finish

    def stopped(self, index, *rest):
        if index == 3:  # the first batch of the second round
            raise KeyboardInterrupt
        finish(self, index, *rest)

    with monkeypatch.context() as patch:
        patch.setattr(takes._Player, "_finish", stopped)
        with pytest.raises(KeyboardInterrupt):
            play(tmp_path, strict, name="broken")
    (tmp_path / "broken.parquet.partial/00001.parquet").write_bytes(b"torn")
    capsys.readouterr()
    broken, broken_ledger = play(tmp_path, strict, name="broken")
    said = capsys.readouterr().out
    assert "warning: " in said and "00001.parquet: cannot be read" in said
    assert "take 1: 1 of 3 batches to play" in said
    assert broken.read_bytes() == whole.read_bytes()
    assert broken_ledger.read_bytes() == ledger.read_bytes()
    assert takes_of(broken).read_bytes() == takes_of(whole).read_bytes()


def test_not_more_than_a_batch_is_held(tmp_path, spec, monkeypatch):
    """Memory grows with the batch: what is read of a finished batch is its account alone."""
    read, sizes = io.Sidecar.read, []

    def spy(self, index, columns=None):
        rows = read(self, index, columns)
        sizes.append(sum(len((row.get("audio") or {}).get("bytes", b"")) for row in rows))
        return rows

    monkeypatch.setattr(io.Sidecar, "read", spy)
    monkeypatch.setattr(takes, "_ROWS_TOGETHER", 2)
    many = [(f"cc-{k}", f"a song number {k}") for k in range(12)]
    whole = audio_of(play(tmp_path, spec, captions=many)[0])
    batch = max(sum(len(whole[f"cc-{k + j}"]) for j in range(2)) for k in range(0, 12, 2))
    assert max(sizes) <= batch
    assert sum(size > 0 for size in sizes) == 6  # each once, when the table is written


def test_a_full_disk_leaves_nothing_half_written(tmp_path, spec):
    """A limit on the size of files stands for the disk: writes beyond it fail as they do there."""
    spec = replace(spec, duration_s=1.0)
    whole, ledger = play(tmp_path, spec, name="whole")
    size = whole.stat().st_size
    job = (
        "import resource, signal\n"
        "from math import inf\n"
        "from conceptcaps import musicgen, takes\n"
        "from conceptcaps.clipquality import Limits\n"
        f"resource.setrlimit(resource.RLIMIT_FSIZE, ({int(0.8 * size)}, resource.RLIM_INFINITY))\n"
        "takes.generate_shard(captions='whole-captions.parquet', arm='base', "
        f"spec=musicgen.{spec!r}, seed=7, output='full.parquet', ledger='full-ledger.parquet', "
        "takes='full-takes.parquet')"
    )
    done = subprocess.run(
        [sys.executable, "-c", job], cwd=tmp_path, text=True, capture_output=True,
        env={"PYTHONPATH": str(SCRIPTS), "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"},
    )  # fmt: skip
    assert done.returncode and "File too large" in done.stderr
    assert not list(tmp_path.rglob("*.tmp")) and not list(tmp_path.glob("full*.parquet"))
    finished = sorted(p.name for p in (tmp_path / "full.parquet.partial").glob("*.parquet"))
    for name in finished:
        io.read_table(tmp_path / "full.parquet.partial" / name)
    assert finished == ["00000.parquet", "00001.parquet", "00002.parquet"]
    full, full_ledger = play(tmp_path, spec, name="full")
    assert full.read_bytes() == whole.read_bytes()
    assert full_ledger.read_bytes() == ledger.read_bytes()


def a_run(tmp_path, spec):
    """Lay a shard out as a run does."""
    (tmp_path / "audio").mkdir()
    output, _ = play(tmp_path, spec)
    captions = tmp_path / "captions/base/00000.parquet"
    captions.parent.mkdir(parents=True)
    (tmp_path / "shard-captions.parquet").rename(captions)
    (tmp_path / "audio/base").mkdir()
    output.rename(tmp_path / "audio/base/00000.parquet")
    (tmp_path / "run").mkdir()
    section = {**vars(spec), "quality": vars(spec.quality)}
    (tmp_path / "run/config.yaml").write_text(yaml.safe_dump({"audio": section}))
    return rows_of(tmp_path / "audio/base/00000.parquet")


def test_one_clip_is_made_again(tmp_path, spec, capsys, monkeypatch):
    rows = a_run(tmp_path, spec)
    again = regenerate.regenerate(tmp_path, "cc-3", arm="base")
    assert again.codes_sha256 == rows["cc-3"]["codes_sha256"] and again.same_tokens == 1
    wave, same = clips.decode(again.flac)[0], clips.decode(rows["cc-3"]["audio"]["bytes"])[0]
    np.testing.assert_allclose(wave, same, atol=4 / 32768)
    command = ["regenerate", str(tmp_path), "cc-3", "--arm", "base", "--output"]
    monkeypatch.setattr(sys, "argv", [*command, str(tmp_path / "again.flac")])
    regenerate.main()
    assert "the same tokens" in capsys.readouterr().out
    assert (tmp_path / "again.flac").read_bytes()[:4] == b"fLaC"
    config = yaml.safe_load((tmp_path / "run/config.yaml").read_text())
    config["audio"]["temperature"] = 0.5  # another record: other tokens, and it says so
    (tmp_path / "run/config.yaml").write_text(yaml.safe_dump(config))
    with pytest.raises(SystemExit, match=r"different: \d+\.\d+% of the tokens are equal"):
        regenerate.main()


def test_what_cannot_be_made_again_is_named(tmp_path, spec):
    with pytest.raises(InputError, match="is not the results of a run"):
        regenerate.regenerate(tmp_path, "cc-0")
    a_run(tmp_path, spec)
    with pytest.raises(InputError, match=r"there are no clips\. Name the results and an arm"):
        regenerate.regenerate(tmp_path, "cc-0")
    with pytest.raises(InputError, match=r"no clip 'cc-33' among 5\. Did you mean 'cc-3'"):
        regenerate.regenerate(tmp_path, "cc-33", arm="base")


def test_not_a_number_names_clip_and_step(tmp_path, spec, monkeypatch):
    """One clip's logits break at step 7: it alone is lost, and its other take is kept."""
    engine = musicgen.Engine
    logits = engine._logits

    def broken(self, state, at, *args):
        out = logits(self, state, at, *args)
        if at == 7 and not getattr(self, "broke", False):
            self.broke = True
            out[1] = torch.nan
        return out

    monkeypatch.setattr(engine, "_logits", broken)
    _, ledger = play(tmp_path, spec, name="lost")
    row = rows_of(ledger)["cc-1"]
    assert row["status"] == "not_finite" and row["reason"].startswith("logits at step 7 that are")
    assert [r["status"] for r in rows_of(ledger).values()].count("ok") == 4
    output, ledger = play(tmp_path, tight(spec, takes=2), name="kept")
    assert rows_of(ledger)["cc-1"]["status"] == "ok"
    assert rows_of(output)["cc-1"]["seed"] == seeding.item_seed(7, "audio/base/1", "cc-1")
