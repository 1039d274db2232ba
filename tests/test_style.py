"""The house style, checked by the field's own tools."""

import ast
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
BIN = Path(sys.executable).parent
SCRIPTS = sorted((ROOT / "workflow/scripts").glob("*.py"))
LIBRARY = sorted((ROOT / "workflow/scripts/conceptcaps").glob("*.py"))


def tracked(*endings):
    """Return the project's own files: what a user wrote beside them is not for us to judge."""
    listed = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True)
    return [name for name in listed.stdout.split() if name.endswith(endings)]


def run(*command):
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    return done.returncode, done.stdout + done.stderr


@pytest.mark.parametrize(
    "command",
    [("ruff", "check"), ("ruff", "format", "--check"), ("snakefmt", "--check")],
    ids=" ".join,
)
def test_formatters_are_content(command):
    files = tracked(".smk", "Snakefile") if command[0] == "snakefmt" else tracked(".py")
    code, output = run(BIN / command[0], *command[1:], *files)
    assert code == 0, output


def test_snakemake_lint_says_good_condition():
    _, output = run(BIN / "snakemake", "--lint")
    assert "in a good condition" in output, output


def test_library_does_not_know_snakemake():
    for path in LIBRARY:
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Import):
                names = [alias.name for alias in node.names]
            elif isinstance(node, ast.ImportFrom):
                names = [node.module or ""]
            elif isinstance(node, ast.Name):
                names = [node.id]
            else:
                continue
            assert not any(n.split(".")[0] == "snakemake" for n in names), path.name


def test_adapters_are_thin():
    for path in SCRIPTS:
        assert len(path.read_text().splitlines()) <= 40, path.name
        assert "snakemake.config" not in path.read_text(), path.name


def test_no_file_is_over_400_lines():
    for path in [*ROOT.rglob("*.py"), *ROOT.rglob("*.smk"), ROOT / "Snakefile"]:
        if not {".venv", "results", ".snakemake"} & set(path.relative_to(ROOT).parts):
            assert len(path.read_text().splitlines()) <= 400, path.name


def test_snakefile_is_a_table_of_contents():
    assert len((ROOT / "Snakefile").read_text().splitlines()) <= 80


def test_every_rule_has_its_script_and_the_uniform_skeleton():
    rule = re.compile(r"^rule (\w+):\n((?:    .*\n|\n)+)", re.MULTILINE)
    order = [
        "input",
        "output",
        "log",
        "benchmark",
        "retries",
        "conda",
        "threads",
        "resources",
        "params",
        "script",
    ]
    found = set()
    for path in (ROOT / "rules").glob("*.smk"):
        if path.name in ("common.smk", "arms.smk", "targets.smk"):
            continue
        for name, body in rule.findall(path.read_text()):
            found.add(name)
            directives = re.findall(r"^    (\w+):", body, re.MULTILINE)
            for needed in ("output", "log", "benchmark", "conda", "params", "script"):
                assert needed in directives, f"{name} has no {needed}"
            assert directives == sorted(directives, key=order.index), f"{name}: order"
            assert f'"../workflow/scripts/{name}.py"' in body, name
            assert f"<logs>/{name}" in body and f"<benchmarks>/{name}" in body, name
            assert re.search(rf'code=fingerprint\("{name}"[,)]', body), name
            assert body.lstrip().startswith('"""'), f"{name} has no docstring"
    assert found == {path.stem for path in SCRIPTS}
