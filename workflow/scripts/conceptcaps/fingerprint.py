"""A hash of the code that a rule runs: its script and every project module that it reaches."""

import ast
import hashlib
import json
from functools import cache
from pathlib import Path

PACKAGE = "conceptcaps"


def script_modules(script: str | Path) -> dict[str, str]:
    """Return {name: hash} of `script` and of the project modules that it imports, transitively.

    The hashes are of the syntax trees: comments, docstrings and formatting do not change them;
    neither does a new modification time. The modules are looked for in the `conceptcaps` directory
    beside the script; their names are dotted, such as "conceptcaps.clips".
    """
    script = Path(script)
    return _modules(script, script.parent / PACKAGE)


def module_fingerprint(module: str | Path) -> str:
    """Return one hash of a module of the package, given its `__file__`, and of what it imports."""
    modules = _modules(Path(module), Path(module).parent)
    return hashlib.sha256(json.dumps(modules, sort_keys=True).encode()).hexdigest()[:16]


def _modules(start: Path, package: Path) -> dict[str, str]:
    pending, hashes = [start], {}
    while pending:
        path = pending.pop()
        name = f"{PACKAGE}.{path.stem}" if path.parent == package else path.name
        if name in hashes:
            continue
        hashes[name], imported = _read(path.read_text())
        pending.extend(
            module for module in (package / f"{other}.py" for other in imported) if module.is_file()
        )
    return hashes


@cache  # rules share most of their modules
def _read(text: str) -> tuple[str, frozenset[str]]:
    """Return the hash of a module's syntax tree and the names of the project modules it imports."""
    tree = ast.parse(text)
    imported = _imports(tree)
    shape = repr(_shape(_without_docstrings(tree)))
    return hashlib.sha256(shape.encode()).hexdigest()[:12], imported


def _shape(node):
    """Return a syntax tree as nested lists, without empty fields: newer Pythons have more."""
    if isinstance(node, list):
        return [_shape(item) for item in node]
    if not isinstance(node, ast.AST):
        return node
    fields = ((name, _shape(value)) for name, value in ast.iter_fields(node))
    return [type(node).__name__, *(field for field in fields if field[1] not in (None, []))]


def _imports(tree: ast.Module) -> frozenset[str]:
    names = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and node.module == PACKAGE:
            names.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and (node.module or "").startswith(f"{PACKAGE}."):
            names.add(node.module.split(".")[1])
    return frozenset(names)


def _without_docstrings(tree: ast.Module) -> ast.Module:
    documented = (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)
    for node in ast.walk(tree):
        if isinstance(node, documented) and ast.get_docstring(node, clean=False) is not None:
            node.body = node.body[1:] or [ast.Pass()]
    return tree
