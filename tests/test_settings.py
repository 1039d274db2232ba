import copy
import itertools
from pathlib import Path

import pytest
import yaml

from conceptcaps.errors import InputError
from conceptcaps.settings import check_settings, load_schema, with_preset

ROOT = Path(__file__).resolve().parent.parent
SCHEMA = ROOT / "workflow/schemas/config.schema.yaml"
CONFIG = yaml.safe_load((ROOT / "config.yaml").read_text())


def changed(path, value):
    config = copy.deepcopy(CONFIG)
    *parents, last = path.split(".")
    section = config
    for key in parents:
        section = section[key]
    section[last] = value
    return config


def merge(base, overlay):
    for key, value in overlay.items():
        if isinstance(value, dict) and isinstance(base.get(key), dict):
            merge(base[key], value)
        else:
            base[key] = value
    return base


def test_config_and_every_overlay_are_valid():
    check_settings(CONFIG, SCHEMA)
    mini = yaml.safe_load((ROOT / "overlays/mini.yaml").read_text())
    for overlay in (ROOT / "overlays").glob("*.yaml"):
        merged = merge(copy.deepcopy(CONFIG), copy.deepcopy(mini))
        check_settings(merge(merged, yaml.safe_load(overlay.read_text())), SCHEMA)


@pytest.mark.parametrize(
    ("path", "value", "message"),
    [
        (
            "audio.guidance_scal",
            3,
            r"unknown key 'audio\.guidance_scal'\. Did you mean 'audio\.guidance_scale'",
        ),
        ("sorces", {}, r"unknown key 'sorces'\. Did you mean 'sources'"),
        ("tags.items", "many", r"tags\.items: must be of type integer, but is 'many' \(str\)"),
        ("tags.items", 0, r"tags\.items: 0 is less than the minimum of 1\. distinct tag sets"),
        (
            "distill.min_categories",
            5,
            r"distill\.min_categories: 5 is greater than the maximum of 4",
        ),
        ("audio.dtype", "float23", r"audio\.dtype: 'float23' is not one of: .*mean 'float32'"),
        ("vae.preset", "papr", r"vae\.preset: there is no preset 'papr'\. Did you mean 'paper'"),
        (
            "vae.compared",
            {"papr": "normal"},
            r"vae\.compared: there is no preset 'papr'\. Did you mean 'paper'",
        ),
        ("captioner.finetune.preset", "ours", r"finetune\.preset: there is no preset 'ours'"),
        ("sources.musiccaps.path", None, r"sources\.musiccaps\.path: kind 'hub' needs a path"),
        ("dataset.subsets", {"audio": 0.5}, r"dataset\.subsets: 'audio' does not match"),
        ("dataset.subsets", {"half-audio": 0.5}, r"dataset\.subsets: 'half-audio' does not"),
        ("dataset.test", 0.9, r"dataset: validation \+ test must leave a share for training"),
        ("sources.musiccaps.sha256", "12", r"sources\.musiccaps\.sha256: '12' does not match"),
    ],
)
def test_a_wrong_value_is_explained(path, value, message):
    with pytest.raises(InputError, match=message):
        check_settings(changed(path, value), SCHEMA)


def test_what_the_command_line_gives_as_text_is_read():
    config = changed("tags.items", "250")
    config["push"] = {**config["push"], "repo": "you/name", "send": "true"}
    config["scores"]["fad"]["lowpass_hz"] = ["2000", "4000"]
    config["audio"]["guidance_scale"] = "2.5"
    config["captioner"]["gate"]["max_copied_words"] = "null"
    config["captioner"]["base"]["revision"] = "null"
    check_settings(config, SCHEMA)
    assert config["tags"]["items"] == 250
    assert config["captioner"]["base"]["revision"] is None
    assert config["push"]["repo"] == "you/name" and config["push"]["send"] is True
    assert config["scores"]["fad"]["lowpass_hz"] == [2000, 4000]
    assert config["audio"]["guidance_scale"] == 2.5
    assert config["captioner"]["gate"]["max_copied_words"] is None


def test_a_text_that_looks_like_a_number_stays_one_where_text_is_wanted():
    config = changed("dataset.name", "2026")
    config["sources"]["musiccaps"]["revision"] = "1e5"
    check_settings(config, SCHEMA)
    assert config["dataset"]["name"] == "2026"
    assert config["sources"]["musiccaps"]["revision"] == "1e5"


def test_a_missing_key_is_named_and_all_problems_come_at_once():
    config = changed("audio.top_k", -1)
    del config["tcav"]["alpha"]
    with pytest.raises(InputError, match=r"(?s)audio\.top_k.*tcav: missing key 'alpha'"):
        check_settings(config, SCHEMA)


def objects(schema, path=""):
    if "properties" in schema:
        yield path, schema
        for key, value in schema["properties"].items():
            yield from objects(value, f"{path}.{key}".strip("."))


def test_every_key_is_closed_required_and_described():
    for path, schema in objects(load_schema(SCHEMA)):
        assert schema["additionalProperties"] is False, path
        assert set(schema["required"]) == set(schema["properties"]), path
        for key, value in schema["properties"].items():
            described = "description" in value or "properties" in value
            assert described, f"{path}.{key} has no description"


def test_profiles_share_what_a_named_profile_replaces():
    profiles = {
        path.parent.name: yaml.safe_load(path.read_text())
        for path in (ROOT / "profiles").glob("*/profile.yaml")
    }
    shared = [
        "rerun-triggers",
        "max-checksum-file-size",
        "rerun-incomplete",
        "keep-going",
        "show-failed-logs",
    ]
    for a, b in itertools.combinations(profiles.values(), 2):
        assert [a[key] for key in shared] == [b[key] for key in shared]


def test_one_job_downloads_at_a_time_in_every_shipped_profile():
    for name in ("default", "mini", "slurm"):
        profile = yaml.safe_load((ROOT / f"profiles/{name}/profile.yaml").read_text())
        assert profile["resources"]["downloads"] == 1, name
    assert "resources" not in yaml.safe_load(
        (ROOT / "profiles/slurm-mini/profile.yaml").read_text()
    )


def nodes(schema):
    yield schema
    for key in ("properties", "$defs"):
        for value in schema.get(key, {}).values():
            yield from nodes(value)
    for key in ("items", "additionalProperties"):
        if isinstance(schema.get(key), dict):
            yield from nodes(schema[key])


def test_no_description_was_cut_at_a_comma():
    """In YAML's flow style an unquoted comma makes a key, without value, of what follows."""
    for node in nodes(load_schema(SCHEMA)):
        assert None not in node.values(), [key for key, value in node.items() if value is None]


def test_a_preset_fills_what_is_not_set():
    section = {"preset": "b", "presets": {"a": {"x": 1, "y": 1}, "b": {"x": 2, "y": 3}}}
    assert with_preset(section | {"x": None, "y": 0.0, "z": None}) == {"x": 2, "y": 0.0, "z": None}


def test_the_papers_preset_is_the_papers():
    paper = with_preset(CONFIG["captioner"]["finetune"] | {"preset": "paper"})
    assert (paper["lora_rank"], paper["lora_alpha"], paper["lora_dropout"]) == (32, 8, 0.26)
    assert (paper["learning_rate"], paper["weight_decay"]) == (6e-5, 0.1)
    assert (paper["epochs"], paper["batch_size"], paper["gradient_accumulation"]) == (5, 4, 8)
