"""The merged config, checked against its closed schema: a typo fails at once, with its cure."""

from pathlib import Path

import jsonschema
import yaml

from conceptcaps.errors import InputError, nearest


def load_schema(path: str | Path) -> dict:
    """Return the JSON schema of config.yaml."""
    return yaml.safe_load(Path(path).read_text())


def check_settings(config: dict, schema_file: str | Path) -> None:
    """Check a merged config against the schema and against what a schema cannot say.

    Numbers, booleans and nulls that `--config` delivered as text are read in place.

    Raises:
        InputError: one message that lists every problem: the key's path, what is wrong, the cure.
    """
    schema = load_schema(schema_file)
    _read_texts(config, schema)
    validator = jsonschema.Draft202012Validator(schema)
    problems = [
        problem
        for error in sorted(validator.iter_errors(config), key=lambda e: [str(p) for p in e.path])
        for problem in _explain(error)
    ]
    if not problems:
        problems = _cross_checks(config)
    if problems:
        raise InputError("config: " + "\n        ".join(problems))


def _read_texts(config: dict, schema: dict) -> None:
    """Snakemake passes nested values of --config on as text: `tags={items: 10}` gives '10'."""
    for key, value in config.items():
        rule = schema.get("properties", {}).get(key, schema.get("additionalProperties"))
        if isinstance(rule, dict):
            config[key] = _read_text(value, rule)


def _read_text(value, rule: dict):
    """Return a value with every text in it that the schema wants as something else read as YAML."""
    if isinstance(value, dict):
        _read_texts(value, rule)
    elif isinstance(value, list) and isinstance(rule.get("items"), dict):
        return [_read_text(item, rule["items"]) for item in value]
    elif isinstance(value, str):
        try:
            parsed = yaml.safe_load(value)
        except yaml.YAMLError:
            return value
        kinds = {bool: {"boolean"}, int: {"integer", "number"}, float: {"number"}}
        kinds[type(None)] = {"null"}
        if kinds.get(type(parsed), set()) & _types(rule):
            return parsed
    return value


def _types(rule: dict) -> set[str]:
    wanted = rule.get("type", [])
    return {wanted} if isinstance(wanted, str) else set(wanted)


def _explain(error: jsonschema.ValidationError) -> list[str]:
    path = ".".join(str(part) for part in error.path)
    here = f"{path}: " if path else ""
    if error.validator == "additionalProperties":
        known = error.schema.get("properties", {})
        unknown = sorted(set(error.instance) - set(known))
        inside = f"{path}." if path else ""
        return [
            f"unknown key '{inside}{key}'.{nearest(inside + key, [inside + k for k in known])}"
            for key in unknown
        ]
    if error.validator == "required":
        missing = [key for key in error.validator_value if key not in error.instance]
        return [f"{here}missing key '{key}'." for key in missing]
    what = error.schema.get("description", "")
    if error.validator == "type":
        wanted = error.validator_value
        wanted = " or ".join(wanted) if isinstance(wanted, list) else wanted
        got = type(error.instance).__name__
        return [f"{here}must be of type {wanted}, but is {error.instance!r} ({got}). {what}"]
    if error.validator == "enum":
        cure = nearest(str(error.instance), error.validator_value)
        allowed = ", ".join(str(value) for value in error.validator_value)
        return [f"{here}{error.instance!r} is not one of: {allowed}.{cure}"]
    return [f"{here}{error.message}. {what}"]


def with_preset(section: dict) -> dict:
    """Return a section without `preset` and `presets`: what is null is the preset's."""
    own = {key: value for key, value in section.items() if key not in ("preset", "presets")}
    chosen = section["presets"][section["preset"]]
    given = {key: value for key, value in own.items() if value is not None or key not in chosen}
    return chosen | given


def _cross_checks(config: dict) -> list[str]:
    problems = []
    for path, chosen in (
        ("vae", config["vae"]),
        ("captioner.finetune", config["captioner"]["finetune"]),
    ):
        name, presets = chosen["preset"], chosen["presets"]
        if name not in presets:
            cure = nearest(name, presets)
            problems.append(f"{path}.preset: there is no preset '{name}'.{cure}")
    for name in config["vae"]["compared"]:
        if name not in config["vae"]["presets"]:
            cure = nearest(name, config["vae"]["presets"])
            problems.append(f"vae.compared: there is no preset '{name}'.{cure}")
    for section, shares in (
        ("distill.heldout", config["distill"]["heldout"]),
        ("dataset", config["dataset"]),
        ("gtzan.classifier", config["gtzan"]["classifier"]),
    ):
        if shares["validation"] + shares["test"] >= 1:
            problems.append(f"{section}: validation + test must leave a share for training.")
    for section, kinds in (("sources.musiccaps", ("hub", "file")), ("gtzan", ("hub", "folder"))):
        source = config
        for key in section.split("."):
            source = source[key]
        if source["kind"] in kinds and not source["path"]:
            problems.append(f"{section}.path: kind '{source['kind']}' needs a path.")
        if source["kind"] == "hub" and not source["revision"]:
            problems.append(f"{section}.revision: kind 'hub' needs a revision.")
    clap = config["scores"]["clap"]
    if clap["backend"] == "laion_clap" and not (clap["checkpoint"] and clap["architecture"]):
        problems.append("scores.clap: backend 'laion_clap' needs checkpoint and architecture.")
    return problems
