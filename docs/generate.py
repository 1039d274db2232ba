"""Write what the project says of itself: the README's rule graph and docs/config.md.

Run by `make format`; a test holds both equal to what this makes.
"""

import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import yaml

ROOT = Path(__file__).resolve().parent.parent
ABSENT = object()
UNITS = {"_s": "s", "_hz": "Hz", "_dbfs": "dBFS", "_mb": "MB", "_tokens": "tokens"}
HEADS = ("key", "meaning", "unit", "allowed", "default", "miniature")


def rule_graph() -> str:
    """Return the rule graph at paper scale as Mermaid, without edges that a path implies."""
    snakemake = Path(sys.executable).parent / "snakemake"
    command = [snakemake, "--rulegraph", "mermaid-js", "results/conceptcaps.parquet"]
    drawn = subprocess.run(command, cwd=ROOT, check=True, capture_output=True, text=True).stdout
    names = dict(re.findall(r"^\s*(id\d+)\[(\w+)\]", drawn, re.MULTILINE))
    edges = re.findall(r"^\s*(id\d+) --> (id\d+)", drawn, re.MULTILINE)
    assert edges, drawn
    arrows = sorted(f"    {names[a]} --> {names[b]}" for a, b in reduced(edges))
    return "\n".join(["```mermaid", "flowchart LR", *arrows, "```"])


def reduced(edges: list[tuple[str, str]]) -> list[tuple[str, str]]:
    """Return the edges of an acyclic graph that no longer path stands for."""
    after: dict[str, set[str]] = {}
    for a, b in edges:
        after.setdefault(a, set()).add(b)

    def reach(a: str) -> set[str]:
        return after.get(a, set()).union(*(reach(b) for b in after.get(a, ())))

    return [(a, b) for a, b in edges if not any(b in reach(c) for c in after[a])]


def settings_page() -> str:
    """Return every key of the config: meaning, unit, what is allowed, default, miniature."""
    schema = yaml.safe_load((ROOT / "workflow/schemas/config.schema.yaml").read_text())
    paper = yaml.safe_load((ROOT / "config.yaml").read_text())
    mini = yaml.safe_load((ROOT / "overlays/mini.yaml").read_text())
    lines = [
        "# Settings",
        "",
        "Every key of `config.yaml`, made from `workflow/schemas/config.schema.yaml`. The schema "
        "is closed: an unknown key stops the run and the nearest one is named. *Miniature* is what "
        "`overlays/mini.yaml` changes. Why a value is what it is stands beside it in "
        "`config.yaml`.",
    ]
    section = None
    for key, rule in keys_of(schema, ""):
        head = key.split(".")[0]
        if head != section:
            section = head
            lines += ["", f"## {head}", "", table_row(*HEADS), "|---" * len(HEADS) + "|"]
        small = value_at(mini, key)
        lines.append(
            table_row(
                f"`{key}`",
                rule.get("description", ""),
                unit(key),
                allowed(rule),
                f"`{shown(value_at(paper, key))}`",
                "" if small is ABSENT else f"`{shown(small)}`",
            )
        )
    for path, rules in presets_of(schema, ""):
        presets = value_at(paper, path)
        lines += ["", f"## {path}", "", f"`{path[:-1]}` chooses one.", ""]
        lines.append(table_row("key", "meaning", "allowed", *presets))
        lines.append("|---" * (3 + len(presets)) + "|")
        for key, rule in rules.items():
            values = [f"`{shown(preset.get(key))}`" for preset in presets.values()]
            lines.append(table_row(f"`{key}`", rule.get("description", ""), allowed(rule), *values))
    return "\n".join(lines) + "\n"


def presets_of(schema: dict, path: str):
    """Yield (path, schemas of its keys) of every mapping of named settings."""
    for key, value in schema["properties"].items():
        here = f"{path}.{key}" if path else key
        if key == "presets":
            yield here, value["additionalProperties"]["properties"]
        elif "properties" in value:
            yield from presets_of(value, here)


def table_row(*cells: str) -> str:
    """Return a row of a Markdown table; a bar in a cell is escaped."""
    return "| " + " | ".join(cell.replace("|", r"\|") for cell in cells) + " |"


def unit(key: str) -> str:
    """Return the unit that a key's name ends with, or nothing."""
    return next((unit for ending, unit in UNITS.items() if key.endswith(ending)), "")


def allowed(rule: dict) -> str:
    """Return what a schema allows, in words."""
    if "enum" in rule:
        return ", ".join(f"`{value}`" for value in rule["enum"])
    kinds = rule.get("type", "")
    words = [" or ".join(kinds) if isinstance(kinds, list) else kinds]
    for name, said in (("minimum", "≥"), ("exclusiveMinimum", ">"), ("maximum", "≤")):
        if name in rule:
            words.append(f"{said} {rule[name]}")
    if isinstance(rule.get("items"), dict) and "enum" in rule["items"]:
        words.append("of " + ", ".join(f"`{value}`" for value in rule["items"]["enum"]))
    return " ".join(words)


def keys_of(schema: dict, path: str) -> Iterator[tuple[str, dict]]:
    """Yield every key's dotted path with its schema, in the schema's order."""
    for key, value in schema["properties"].items():
        here = f"{path}.{key}" if path else key
        if "properties" in value:
            yield from keys_of(value, here)
        elif key != "presets":  # a mapping of named settings, explained beside its values
            yield here, value


def value_at(config: dict, path: str):
    """Return the value at a dotted path, or ABSENT."""
    for key in path.split("."):
        if not isinstance(config, dict) or key not in config:
            return ABSENT
        config = config[key]
    return config


def shown(value) -> str:
    """Return a value as a line of YAML, cut where it is long."""
    text = yaml.safe_dump(value, default_flow_style=True, width=1000).removesuffix("...\n").strip()
    return text if len(text) <= 48 else f"{text[:45]}..."


def fill(text: str) -> str:
    """Return README text with its rule graph made anew."""
    begin, end = "<!-- rule graph: generated by docs/generate.py -->", "<!-- /rule graph -->"
    before, _, rest = text.partition(begin)
    _, _, after = rest.partition(end)
    assert after, "README.md has no block 'rule graph'"
    return f"{before}{begin}\n{rule_graph()}\n{end}{after}"


if __name__ == "__main__":
    readme = ROOT / "README.md"
    readme.write_text(fill(readme.read_text()))
    (ROOT / "docs/config.md").write_text(settings_page())
