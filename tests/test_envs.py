"""The conda environments: the same pins as requirements.txt, and all that their rules import."""

import ast
import importlib.metadata
import re
import sys
from functools import cache
from pathlib import Path

import pytest
import yaml

from conceptcaps.provenance import PACKAGES

ROOT = Path(__file__).resolve().parent.parent
SCRIPTS = ROOT / "workflow/scripts"
ENVS = ("core", "text", "audio")
REQUIREMENTS = ("requirements.txt", "requirements-no-deps.txt")
OPTIONAL = ("vllm",)  # of an engine that a user may install; without it, a message says how
NEEDED_UNSEEN = {  # nothing imports these here, but the libraries that need them do not bring them
    "core": {},
    "text": {"accelerate": "transformers' trainer", "bitsandbytes": "4-bit weights, transformers"},
    # what laion-clap and audiocraft import: they are installed without their dependencies
    "audio": {
        name: "laion-clap"
        for name in (
            "braceexpand",
            "ftfy",
            "h5py",
            "llvmlite",
            "pandas",
            "progressbar",
            "regex",
            "torchaudio",
            "torchlibrosa",
            "torchvision",
            "wandb",
            "webdataset",
            "wget",
        )
    }
    | {
        name: "audiocraft"
        for name in (
            "antlr4-python3-runtime",
            "av",
            "blis",
            "catalogue",
            "cloudpathlib",
            "colorlog",
            "confection",
            "cymem",
            "docopt",
            "dora-search",
            "einops",
            "flashy",
            "hydra-core",
            "julius",
            "lightning-utilities",
            "murmurhash",
            "num2words",
            "omegaconf",
            "preshed",
            "retrying",
            "sentencepiece",
            "smart-open",
            "spacy-legacy",
            "spacy-loggers",
            "spacy",
            "srsly",
            "submitit",
            "thinc",
            "torchmetrics",
            "treetable",
            "typer",
            "wasabi",
            "weasel",
            "xformers",
        )
    },
}


def normal(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def pins(lines) -> dict[str, str]:
    """Return {normalised name: version} of lines `name==version`."""
    kept = [line.split("#")[0].strip() for line in lines]
    return {normal(line.split("==")[0]): line.split("==")[1] for line in kept if line}


@cache
def required() -> dict[str, str]:
    return pins(line for file in REQUIREMENTS for line in (ROOT / file).read_text().splitlines())


@cache
def installed_by(env: str) -> dict[str, str]:
    """Return the pins of an environment: its pip section and its post-deploy script."""
    after = ROOT / f"envs/{env}.post-deploy.sh"
    later = re.findall(r"\S+==\S+", after.read_text()) if after.is_file() else []
    return pins_in_yaml(env) | pins(later)


def pins_in_yaml(env: str) -> dict[str, str]:
    content = yaml.safe_load((ROOT / f"envs/{env}.yaml").read_text())
    (listed,) = [entry["pip"] for entry in content["dependencies"] if isinstance(entry, dict)]
    return pins(listed)


@cache
def scripts_of() -> dict[str, list[str]]:
    """Return {environment: [rule, ...]} as the rules say."""
    found = {}
    for file in (ROOT / "rules").glob("*.smk"):
        for rule, body in re.findall(r"^rule (\w+):\n((?:[ ].*\n|\n)+)", file.read_text(), re.M):
            for env in re.findall(r'"\.\./envs/(\w+)\.yaml"', body):
                found.setdefault(env, []).append(rule)
    return found


def imported(path: Path) -> set[str]:
    """Return every module that a file imports, at any depth, the project's as `conceptcaps.x`."""
    names = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module == "conceptcaps":
            names.update(f"conceptcaps.{alias.name}" for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            names.add(node.module)
    return names


def reached_by(rule: str) -> set[str]:
    """Return every module that a rule's script imports, through the project's modules."""
    pending, done, names = [SCRIPTS / f"{rule}.py"], set(), set()
    while pending:
        path = pending.pop()
        if path in done or not path.is_file():
            continue
        done.add(path)
        found = imported(path)
        names |= found
        pending += [
            SCRIPTS / "conceptcaps" / f"{name.split('.')[1]}.py"
            for name in found
            if name.startswith("conceptcaps.")
        ]
    return names


@cache
def packages_needed(env: str) -> dict[str, str]:
    """Return {normalised package: a rule that imports it} for the rules of an environment."""
    distributions = importlib.metadata.packages_distributions()
    needed = {}
    for rule in scripts_of()[env]:
        for module in sorted({name.split(".")[0] for name in reached_by(rule)}):
            own = module in ("conceptcaps", *OPTIONAL)
            if module not in sys.stdlib_module_names and not own:
                needed.setdefault(normal(distributions[module][0]), rule)
    return needed


def test_every_environment_is_used_and_every_used_one_exists():
    assert sorted(scripts_of()) == sorted(ENVS)
    assert sorted(path.stem for path in (ROOT / "envs").glob("*.yaml")) == sorted(ENVS)


@pytest.mark.parametrize("env", ENVS)
def test_pins_are_those_of_the_requirements(env):
    for name, version in installed_by(env).items():
        assert required().get(name) == version, f"envs/{env}: {name}=={version}"


@pytest.mark.parametrize("env", ENVS)
def test_channel_and_python(env):
    content = yaml.safe_load((ROOT / f"envs/{env}.yaml").read_text())
    assert content["channels"] == ["conda-forge"]
    assert "python=3.11" in content["dependencies"]


@pytest.mark.parametrize("env", ENVS)
def test_rules_find_what_they_import(env):
    held = installed_by(env)
    missing = {name: rule for name, rule in packages_needed(env).items() if name not in held}
    assert not missing, f"envs/{env}.yaml lacks {missing}"


@pytest.mark.parametrize("env", ENVS)
def test_environments_hold_nothing_else(env):
    """Skipped while a module of a rule is not written: its imports are not known."""
    unwritten = {
        name
        for rule in scripts_of()[env]
        for name in reached_by(rule)
        if name.startswith("conceptcaps.")
        and not (SCRIPTS / "conceptcaps" / f"{name.split('.')[1]}.py").is_file()
    }
    if unwritten:
        pytest.skip(f"not written: {sorted(unwritten)}")
    extra = installed_by(env).keys() - packages_needed(env).keys() - NEEDED_UNSEEN[env].keys()
    assert not extra, f"envs/{env}.yaml: nothing imports {sorted(extra)}"


def test_audiocraft_and_laion_clap_are_installed_without_their_dependencies():
    """They declare torch 2.1 and numpy<2: in the pip section no environment would solve."""
    no_deps = pins((ROOT / "requirements-no-deps.txt").read_text().splitlines())
    for env in ENVS:
        assert not no_deps.keys() & pins_in_yaml(env).keys()
    script = (ROOT / "envs/audio.post-deploy.sh").read_text()
    assert all(f"{name}=={version}" in script for name, version in no_deps.items())
    assert "--no-deps" in script


def test_the_run_records_the_version_of_every_direct_dependency():
    direct = {"accelerate", "bitsandbytes", "snakemake"}
    direct.update(name for env in ENVS for name in packages_needed(env))
    assert direct <= {normal(name) for name in PACKAGES}
