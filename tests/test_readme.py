"""The README's generated parts and its commands agree with the project."""

import re
import sys
from pathlib import Path

import yaml

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "docs"))


def test_generated_parts_are_in_sync():
    import generate

    text = (ROOT / "README.md").read_text()
    assert generate.fill(text) == text, "run `make format`"
    assert generate.settings_page() == (ROOT / "docs/config.md").read_text(), "run `make format`"


def test_every_make_target_that_is_named_exists():
    makefile = (ROOT / "Makefile").read_text()
    for name in ("README.md", "CONTRIBUTING.md"):
        text = (ROOT / name).read_text()
        for target in re.findall(r"(?:`|^)make ([a-z]+)", text, re.MULTILINE):
            assert re.search(rf"^{target}:", makefile, re.MULTILINE), target


def test_every_named_file_exists():
    for name in ("README.md", "CONTRIBUTING.md"):
        for link in re.findall(r"\]\((?!http)([^)#]+)\)", (ROOT / name).read_text()):
            assert (ROOT / link).exists(), link


def test_ci_runs_the_test_command_of_the_readme():
    assert "make test" in (ROOT / ".ci/run").read_text()


def test_metadata_is_yaml():
    assert yaml.safe_load((ROOT / "CITATION.cff").read_text())
