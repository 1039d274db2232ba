"""The documentation's generated pages and its formulas: hooks that MkDocs calls (mkdocs.yml).

Pages that say what the code says are made from it: rules from rules/, the library from its
docstrings; the settings' page is a file of its own (generate.py). Formulas become MathML, so that
no page needs a script or the network.
"""

import html
import re
import sys
from pathlib import Path

import latex2mathml.converter
from mkdocs.structure.files import File, Files

ROOT = Path(__file__).resolve().parent.parent
SCRIPTS = ROOT / "workflow/scripts"
SHARED = 3  # a module that so many stages reach belongs to none of them
sys.path[:0] = [str(ROOT / "docs"), str(SCRIPTS)]

from generate import table_row  # noqa: E402

from conceptcaps.fingerprint import script_modules  # noqa: E402


def on_config(config):
    """Put the library's pages, one a stage, below its index."""
    pages = [{stage: f"library/{stage}.md"} for stage in stages()]
    reference = config.nav[-1]["Reference"]
    reference[-1] = {"Library": ["library/index.md", *pages]}
    return config


def on_files(files: Files, config) -> Files:
    """Add the generated pages, and the cluster's page, which lies beside the profiles."""
    pages = {"cluster.md": (ROOT / "profiles/README.md").read_text()}
    pages |= {"rules.md": rules_page(), **library_pages()}
    for name, text in pages.items():
        files.append(File.generated(config, name, content=text))
    return files


def on_page_content(text: str, **_) -> str:
    r"""Turn formulas, \(...\) in a line and \[...\] alone, into MathML."""

    def mathml(match: re.Match) -> str:
        display = "inline" if match[1] == "span" else "block"
        formula = html.unescape(match[2]).strip()[2:-2]
        return latex2mathml.converter.convert(formula, display=display)

    return re.sub(r'<(span|div) class="arithmatex">(.*?)</\1>', mathml, text, flags=re.DOTALL)


def rule_files() -> list[Path]:
    """Return the files of rules in the order of the Snakefile, the functions' file left out."""
    named = re.findall(r'^include: "(rules/\w+\.smk)"', (ROOT / "Snakefile").read_text(), re.M)
    return [ROOT / name for name in named if not name.endswith(("common.smk", "arms.smk"))]


def rules_in(file: Path) -> list[tuple[str, str, str]]:
    """Return (name, docstring, body) of every rule of a file."""
    rules = re.split(r"^(?:rule|checkpoint) (\w+):\n", file.read_text(), flags=re.M)[1:]
    found = []
    for name, body in zip(rules[::2], rules[1::2], strict=True):
        documented = re.match(r'\s*"""(.*?)"""', body, re.DOTALL)
        said = " ".join(documented[1].split()) if documented else ""
        found.append((name, said, body))
    return found


def rules_page() -> str:
    """Return the table of rules, stage by stage."""
    lines = [
        "# Rules",
        "",
        "Made from `rules/*.smk`. A rule that does something has a script of its name in "
        "`workflow/scripts/`, which calls one function of the [library](library/index.md), a log "
        "and a benchmark. *GPU*: it asks for one.",
    ]
    for file in rule_files():
        contract = re.match(r'"""(.*?)"""', file.read_text(), re.DOTALL)[1].strip()
        summary, *rest = contract.split("\n\n")
        details = "\n".join(part for part in rest)
        lines += ["", f"## {file.stem}", "", " ".join(summary.split()), ""]
        lines += ["```text", details, "```", ""] if details else []
        lines += [table_row("rule", "what it does", "GPU"), "|---|---|---|"]
        for name, said, body in rules_in(file):
            gpu = "yes" if re.search(r"\bgpu=1\b", body) else ""
            lines.append(table_row(f"`{name}`", said, gpu))
    return "\n".join(lines) + "\n"


def stages() -> dict[str, list[str]]:
    """Return {stage: modules}: of the first file of rules that reaches a module.

    A module that several stages reach is shared; one that no rule reaches is a command.
    """
    reached: dict[str, list[str]] = {}
    for file in rule_files():
        for name, _, _ in rules_in(file):
            script = SCRIPTS / f"{name}.py"
            for module in script_modules(script) if script.is_file() else ():
                if module.startswith("conceptcaps.") and file.stem not in reached.get(module, []):
                    reached.setdefault(module, []).append(file.stem)
    grouped = {file.stem: [] for file in rule_files()} | {"shared": [], "commands": []}
    for path in sorted((SCRIPTS / "conceptcaps").glob("*.py")):
        module = f"conceptcaps.{path.stem}"
        by = reached.get(module, [])
        if path.stem != "__init__":
            stage = "commands" if not by else "shared" if len(by) >= SHARED else by[0]
            grouped[stage].append(module)
    return {stage: modules for stage, modules in grouped.items() if modules}


def library_pages() -> dict[str, str]:
    """Return the pages of the library's docstrings, one a stage, and their index."""
    pages = {}
    index = [
        "# Library",
        "",
        "`workflow/scripts/conceptcaps`, from its docstrings. It does not know Snakemake: with "
        "`PYTHONPATH=workflow/scripts` all of it can be called from Python. A module stands at the "
        f"first stage that uses it; those that {SHARED} or more stages use are *shared*; "
        "*commands* are used by no rule.",
    ]
    for stage, modules in stages().items():
        lines = [f"# Library: {stage}", ""]
        index += ["", f"## [{stage}]({stage}.md)", ""]
        for module in modules:
            first = _first_sentence(SCRIPTS / f"{module.replace('.', '/')}.py")
            index.append(f"- [`{module}`]({stage}.md#{module}): {first}")
            lines += [f"::: {module}", ""]
        pages[f"library/{stage}.md"] = "\n".join(lines)
    return {"library/index.md": "\n".join(index) + "\n", **pages}


def _first_sentence(path: Path) -> str:
    said = re.match(r'r?"""(.*?)(?:\n\n|""")', path.read_text(), re.DOTALL)
    return " ".join(said[1].split()) if said else ""
