"""What a change makes run again: exactly these rules, and nothing after a change of no content."""

import os
import re
import shutil
from collections import Counter
from fnmatch import fnmatch
from pathlib import Path
from types import SimpleNamespace
from typing import NamedTuple

import pytest
import yaml
from conftest import OPTIONAL, reruns_of

from conceptcaps.settings import load_schema

ROOT = Path(__file__).resolve().parent.parent
ROW = (
    "Write there which rules have the key in their params, for example 'audio.top_k: "
    "[generate_audio]'. One that a rule has needlessly costs "
    "GPU hours (see `section` and GATES in rules/common.smk)."
)
TABLE = yaml.safe_load((ROOT / "tests/invalidation.yaml").read_text())


def leaves(schema, config, path=""):
    """Yield (dotted key, its schema, its value) of every key that holds a value."""
    if "properties" in schema:
        for key, inner in schema["properties"].items():
            yield from leaves(inner, config[key], f"{path}.{key}".strip("."))
    elif "properties" in (schema.get("additionalProperties") or {}):
        for key, value in config.items():
            yield from leaves(schema["additionalProperties"], value, f"{path}.{key}")
    else:
        yield path, schema, config


def merged():
    config = yaml.safe_load((ROOT / "config.yaml").read_text())

    def merge(base, overlay):
        for key, value in overlay.items():
            if isinstance(value, dict) and isinstance(base.get(key), dict):
                merge(base[key], value)
            else:
                base[key] = value

    merge(config, yaml.safe_load((ROOT / "overlays/mini.yaml").read_text()))
    return config


SCHEMA = load_schema(ROOT / "workflow/schemas/config.schema.yaml")
KEYS = {path: (schema, value) for path, schema, value in leaves(SCHEMA, merged())}


def row(key):
    """Return the table's row of a key: {to, reruns}; a pattern stands for many keys."""
    found = [TABLE[pattern] for pattern in TABLE if fnmatch(key, pattern)]
    if not found:
        pytest.fail(f"tests/invalidation.yaml has no row for the config key '{key}'. {ROW}")
    return found[0] if isinstance(found[0], dict) else {"reruns": found[0]}


def another(key):
    """Return another valid value of a key: the table's `to`, or a near one."""
    schema, value = KEYS[key]
    if "to" in row(key):
        return row(key)["to"]
    if "enum" in schema:
        return next(other for other in schema["enum"] if other != value)
    if isinstance(value, bool):
        return not value
    if isinstance(value, int):
        return value + 1
    if isinstance(value, float):
        return round(0.9 * value, 12) or 0.1
    if isinstance(value, list):
        return value[:-1]
    if isinstance(value, dict):
        return {name: 0.9 * share for name, share in value.items()}
    pytest.fail(f"tests/invalidation.yaml: say to what '{key}' changes: {{to: ..., reruns: [...]}}")


def nested(changes):
    """Return {dotted key: value} as an overlay."""
    overlay = {}
    for key, value in changes.items():
        *parents, last = key.split(".")
        section = overlay
        for part in parents:
            section = section.setdefault(part, {})
        section[last] = value
    return overlay


class Plan(NamedTuple):
    """The jobs that would run, as rule/wildcards, and {job: the jobs that read what it makes}."""

    jobs: set[str]
    readers: dict[str, set[str]]

    def after(self, *entries):
        """Return the jobs that entries of the table stand for, and all jobs behind them."""
        pending = [
            job
            for entry in entries
            for job in self.readers
            if job == entry or job.startswith(f"{entry}/")
        ]
        found = set()
        while pending:
            job = pending.pop()
            if job not in found:
                found.add(job)
                pending.extend(self.readers[job])
        return found


@pytest.fixture(scope="module")
def plan(finished, tmp_path_factory):
    """Return a function: changed settings -> what would run on top of the finished results."""
    overlay = tmp_path_factory.mktemp("overlay") / "change.yaml"

    def label(job):
        return "/".join([job.rule.name, *job.wildcards])

    with reruns_of(finished) as (planned, reruns):

        def plan(changes=None, targets=OPTIONAL):
            overlay.write_text(yaml.safe_dump(nested(changes or {})))
            with planned(*targets, overlays=[overlay]) as workflow:
                readers = {label(job): set() for job in workflow.dag.jobs if not job.rule.norun}
                for job in workflow.dag.jobs:
                    for maker, files in workflow.dag.dependencies[job].items():
                        ancient = all(file.is_ancient for file in files)
                        if not job.rule.norun and not ancient:
                            readers[label(maker)].add(label(job))
                return Plan({label(job) for job in reruns.rerun_jobs(workflow)}, readers)

        yield plan


def test_a_finished_run_has_nothing_to_do(plan):
    assert plan().jobs == set()


@pytest.mark.parametrize("key", KEYS)
def test_a_setting_reruns_exactly_its_rules_and_their_readers(key, plan):
    entry = row(key)
    planned = plan({key: another(key), **entry.get("with", {})})
    record = [] if key.startswith("push.") else ["record_run"]  # it holds the rest of the config
    expected = planned.after(*record, *entry["reruns"])
    for rule in entry["reruns"]:
        assert planned.after(rule), f"tests/invalidation.yaml, {key}: there is no rule '{rule}'"
    missed, extra = sorted(expected - planned.jobs), sorted(planned.jobs - expected)
    assert not missed, f"a change of {key} should run these again, but does not: {missed}"
    assert not extra, f"a change of {key} runs these again as well: {extra}. {ROW}"


def test_growing_the_dataset_makes_new_shards_only(plan):
    made = {job for job in plan({"tags.items": 1700}).jobs if job.count("/") == 2}
    shards = ["00002"]
    stages = ["generate_captions", "generate_audio", "score_clap"]
    assert made == {f"{stage}/conceptcaps/{shard}" for stage in stages for shard in shards}


def test_files_that_a_rule_reads_are_its_inputs(finished, tmp_path):
    """Of a folder Snakemake sees the date of its top alone: not a clip that was replaced in it."""
    genre, other = (tmp_path / f"genres_original/{name}.wav" for name in ("jazz/a", "rock/b"))
    for clip in (genre, other):
        clip.parent.mkdir(parents=True)
        clip.touch()
    names, overlay = tmp_path / "names.txt", tmp_path / "change.yaml"
    names.touch()
    changes = {
        "gtzan.kind": "folder",
        "gtzan.path": str(tmp_path),
        "scores.fad.reference": str(tmp_path),
        "captioner.gate.artists": str(names),
    }
    overlay.write_text(yaml.safe_dump(nested(changes)))
    with reruns_of(finished) as (planned, _), planned(*OPTIONAL, overlays=[overlay]) as workflow:
        inputs = {job.rule.name: set(job.input) for job in workflow.dag.jobs}
        assert inputs["retrieve_gtzan"] == {str(genre), str(other)}
        assert inputs["embed_reference"] >= {str(genre), str(other)}
        assert str(names) in inputs["generate_captions"]
        assert inputs["train_mini_llama"] == {"resources/prompts/caption.yaml"}


def test_no_arm_can_have_the_name_of_an_input_beside_the_arms(finished):
    text = (ROOT / "rules/arms.smk").read_text()
    refused = set(re.findall(r'"(\w+)"', re.search(r"BESIDE_ARMS = (.*)", text)[1]))
    with reruns_of(finished) as (planned, _), planned(*OPTIONAL) as workflow:
        beside = {
            name
            for job in workflow.dag.jobs
            if job.rule.name in ("summarise_clap", "score_fad")
            for name in set(job.input.keys()) - set(job.params.arms)
        }
    assert beside == refused


def test_the_table_has_no_row_too_many():
    for pattern in TABLE:
        assert any(fnmatch(key, pattern) for key in KEYS), f"{pattern}: no such key any more"


def why(run, *targets, changes=None, overlay=None):
    if changes:
        overlay.write_text(yaml.safe_dump(nested(changes)))
    overlays = [overlay] if changes else []
    with (
        reruns_of(run) as (planned, reruns),
        planned(*(targets or OPTIONAL), overlays=overlays) as flow,
    ):
        return reruns.lines(flow)


def test_why_names_the_setting_and_its_values(finished, tmp_path):
    changes = {"audio.guidance_scale": 4.0, "scores.fad.control_clips": 9, "tcav.layers": ["conv3"]}
    said = why(finished, changes=changes, overlay=tmp_path / "change.yaml")
    jobs = "generate_audio base/00000 ... zero_shot/00000 (4 jobs)"
    assert f"{jobs}: the setting audio.guidance_scale changed from 3.3 to 4.0" in said
    changed = "embed_reference: the setting scores.fad.control_clips changed from 60 to 9"
    assert changed in said
    assert sum("it reads what generate_audio will make" in line for line in said) >= 2
    assert not any(line.startswith("generate_captions") for line in said)
    said = why(finished, changes={"tags.items": 1300}, overlay=tmp_path / "change.yaml")
    new = "results/mini/captions/conceptcaps/00002.parquet has not been made yet"
    assert f"generate_captions conceptcaps/00002: {new}" in said


@pytest.mark.parametrize("recorded", [True, False])
def test_why_does_not_swap_the_old_values_of_one_type(finished, recorded):
    """Snakemake keeps values without names: the config's record tells them apart, or nothing."""
    old = {"seed": 2026, "shard_items": 600, "engine": "a"}
    new = {"seed": 2027, "shard_items": 500, "engine": "b"}
    config = {"seed": (2026, 2027), "shards.items": (600, 500)} if recorded else {}
    job = SimpleNamespace(params=new, rule=SimpleNamespace(params={}))
    change = SimpleNamespace(
        only_old={repr(value) for value in old.values()},
        only_new={repr(value) for value in new.values()},
    )
    with reruns_of(finished) as (_, reruns):
        changes = [(key, *values) for key, values in config.items()]
        known = SimpleNamespace(_serialize_param=repr)
        said = sorted(reruns._param_changes(job, change, known, changes))
    parameters = ["its parameter seed changed to 2027", "its parameter shard_items changed to 500"]
    settings = [
        "the setting seed changed from 2026 to 2027",
        "the setting shards.items changed from 600 to 500",
    ]
    assert said == [
        "its parameter engine changed from a to b",
        *(settings if recorded else parameters),
    ]


@pytest.mark.parametrize("option", [["-F"], ["--until", "all"], ["--omit-from", "all"]])
def test_why_refuses_options_that_it_would_ignore(finished, option):
    with (
        reruns_of(finished) as (_, reruns),
        pytest.raises(SystemExit, match=r"make why: --(forceall|until|omit-from) would be ignored"),
        reruns.planned(["--workflow-profile", "mini", *option]),
    ):
        pass


def test_only_content_counts_and_why_says_which(finished, tmp_path):
    """A fresh checkout beside the results: touched, commented and reordered, then truly changed."""
    run = finished.copy(tmp_path / "copy")
    zoo = run.directory / "resources/mini/models"
    zoo.unlink()
    shutil.copytree(ROOT / "resources/mini/models", zoo, copy_function=shutil.copyfile)
    for path in [*run.directory.rglob("*.py"), *run.directory.rglob("*.smk")]:
        path.write_text(path.read_text() + "\n# a remark\n")
    for name in ("config.yaml", "overlays/mini.yaml"):
        path = run.directory / name
        settings = yaml.safe_load(path.read_text())
        path.write_text("# a remark\n" + yaml.safe_dump(settings, sort_keys=True, indent=4))
    results = run.directory / "results"
    for path in run.directory.rglob("*"):
        if path.is_file() and not path.is_relative_to(results):
            os.utime(path)
    assert why(run) == []
    engine = run.directory / "workflow/scripts/conceptcaps/musicgen.py"
    engine.write_text(engine.read_text() + "\nVERSION = 2\n")
    vocabulary = run.directory / "resources/mini/taxonomy.yaml"
    vocabulary.write_text(vocabulary.read_text() + "\n# content, as far as Snakemake can tell\n")
    (run.results / "scores/fad.json").unlink()
    said = why(run)
    assert "distill_musiccaps: its input resources/mini/taxonomy.yaml changed" in said
    assert "play_miniature: the code of conceptcaps.musicgen changed" in said
    assert any(
        line.startswith("score_fad: results/mini/scores/fad.json was deleted") for line in said
    )
    assert not any(line.startswith("finetune_captioner: the code") for line in said)


@pytest.mark.pipeline
@pytest.mark.parametrize(
    "key",
    ["audio.guidance_scale", "audio.min_yield", "tags.items", "tags.max_tags", "arms.compared"],
)
def test_a_run_that_was_made_agrees(key, mini, plan, tmp_path):
    """What is planned on top of one-byte files is what `snakemake -n` plans on real results."""
    changes = {key: another(key)}
    (tmp_path / "change.yaml").write_text(yaml.safe_dump(nested(changes)))
    files = ["--configfile", "overlays/mini.yaml", tmp_path / "change.yaml"]
    said = mini.snakemake("--workflow-profile", "mini", "-n", *files).stdout
    listed = re.findall(r"^(\w+) +(\d+)$", said.split("Job stats:")[1], re.MULTILINE)
    found = {rule: int(n) for rule, n in listed if rule not in ("all", "total", "job")}
    assert found == Counter(job.split("/")[0] for job in plan(changes, ["all"]).jobs)
