"""The documentation builds strictly, asks for nothing from elsewhere, and what it shows runs."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).resolve().parent.parent
BLOCK = re.compile(r'^```(\w+)(?: title="([^"]+)")?\n(.*?)^```$', re.M | re.S)


def blocks(page: str) -> list[tuple[str, str, str]]:
    """Return (language, title, text) of the code blocks of a page."""
    return BLOCK.findall((ROOT / "docs" / page).read_text())


@pytest.fixture(scope="module")
def site(tmp_path_factory) -> Path:
    directory = tmp_path_factory.mktemp("site")
    done = subprocess.run(
        [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", directory],
        cwd=ROOT,
        env=os.environ | {"NO_MKDOCS_2_WARNING": "1"},
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
    )
    assert not done.returncode, done.stdout[-4000:]
    return directory


@pytest.mark.long
def test_site_builds_with_every_key_rule_and_module(site):
    config = (site / "config.html").read_text()
    paper = yaml.safe_load((ROOT / "config.yaml").read_text())
    for section, keys in paper.items():
        for key in keys if isinstance(keys, dict) else [None]:
            path = f"{section}.{key}" if key else section
            assert f"<code>{path}" in config or f'id="{path.replace(".", "")}"' in config, path
    rules = (site / "rules.html").read_text()
    for file in (ROOT / "rules").glob("*.smk"):
        for rule in re.findall(r"^rule (\w+):", file.read_text(), re.M):
            assert f"<code>{rule}</code>" in rules, rule
    library = "".join(page.read_text() for page in (site / "library").glob("*.html"))
    for module in (ROOT / "workflow/scripts/conceptcaps").glob("*.py"):
        if module.stem != "__init__":
            assert f'id="conceptcaps.{module.stem}"' in library, module.stem


@pytest.mark.long
def test_pages_load_nothing_from_elsewhere_and_their_formulas_are_mathml(site):
    pages = {page: page.read_text() for page in site.rglob("*.html")}
    for page, text in pages.items():
        loaded = re.findall(r'<(?:script|img|iframe|source)[^>]*?src="([^"]*)"', text)
        loaded += re.findall(r'<link[^>]*?href="([^"]*)"', text)
        assert not [url for url in loaded if re.match(r"(https?:)?//", url)], page
        assert "arithmatex" not in text, page
        assert "mermaid" not in text, f"{page}: the theme would fetch its renderer"
    clips = next(text for page, text in pages.items() if page.name == "metrics_clips.html")
    assert clips.count("<math") >= 4


@pytest.mark.parametrize("page", ["own_captions.md", "tcav.md"])
def test_python_examples_run(page, tmp_path):
    (code,) = [text for language, title, text in blocks(page) if language == "python"]
    environment = os.environ | {"PYTHONPATH": str(ROOT / "workflow/scripts")}
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, env=environment, text=True, capture_output=True
    )
    assert not done.returncode, done.stderr
    if page == "tcav.md":  # what the page says of its output
        rows = [line.split() for line in done.stdout.splitlines()]
        found = {(row[0], row[1]): (float(row[3]), row[6] == "True") for row in rows}
        assert found["loud", "rock"][0] > 0.75 and found["loud", "rock"][1]
        assert found["loud", "jazz"][0] < 0.25 and found["loud", "jazz"][1]
        assert all(found["planted", genre][1] for genre in ("rock", "jazz"))


def script_of(page: str) -> str:
    """Return a page's blocks as one shell script: titled ones are files, the others commands."""
    lines = ["set -euo pipefail"]
    for language, title, text in blocks(page):
        if title:
            lines += [f"cat > {title} <<'END OF {title}'", text.rstrip("\n"), f"END OF {title}"]
        else:
            assert language == "bash", f"{page}: a block of {language} without a title"
            for command in text.strip().splitlines():
                lines += [f"echo '>>>' {len(lines)}", command]
    return "\n".join(lines) + "\n"


@pytest.mark.long
@pytest.mark.pipeline
def test_tutorial_runs_as_it_stands(mini, tmp_path):
    """Every command but one: making the small dataset takes minutes, so that is planned only."""
    whole = "mine.yaml -- results/mine/conceptcaps.parquet"
    script = script_of("tutorial.md")
    miniature = f"overlays/mini.yaml {whole}"
    assert miniature in script
    script = script.replace(miniature, miniature.replace(" -- ", " -n -q rules -- "))
    run = mini.copy(tmp_path / "newcomer")
    environment = Path(sys.prefix)
    (run.directory / ".venv").mkdir()  # as `make install` leaves it
    for name in ("bin", "lib", "pyvenv.cfg"):
        (run.directory / ".venv" / name).symlink_to(environment / name)
    (run.directory / ".venv/.installed").touch()
    done = subprocess.run(
        ["bash", "-c", script],
        cwd=run.directory,
        env=run.environment(),
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
    )
    assert not done.returncode, done.stdout[-6000:]
    assert (run.directory / "clip.wav").stat().st_size > 100_000
    assert (run.directory / "results/mine/tags/tags.parquet").is_file()
    assert (run.directory / "results/mini/report.zip").is_file()
    for said in ("Nothing to be done", "too few categories", "heldout_jaccard"):
        assert said in done.stdout
    shutil.rmtree(run.directory)
