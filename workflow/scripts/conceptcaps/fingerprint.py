"""A hash of the code that a rule runs: its script and every project module that it reaches."""

import ast
import hashlib
import json
from functools import cache
from pathlib import Path

PACKAGE = "conceptcaps"
_DOCUMENTED = (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)


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
    imported = set()
    shape = repr(_shape(ast.parse(text), imported))
    return hashlib.sha256(shape.encode()).hexdigest()[:12], frozenset(imported)


def _shape(node, imported: set[str]):
    """Return a syntax tree as nested lists, without docstrings; add the modules it imports.

    Empty fields are left out: newer Pythons have more of them. One pass, since every job of a run
    does it anew.
    """
    if isinstance(node, list):
        return [_shape(item, imported) for item in node]
    if not isinstance(node, ast.AST):
        return node
    if isinstance(node, ast.ImportFrom):
        imported.update(_project_modules(node))
    shape = [type(node).__name__]
    for name in node._fields:
        value = getattr(node, name, None)
        if value is None or value == []:
            continue
        if name == "body" and isinstance(node, _DOCUMENTED) and _is_docstring(value[0]):
            value = value[1:] or [ast.Pass()]
        shape.append((name, _shape(value, imported)))
    return shape


def _project_modules(node: ast.ImportFrom) -> list[str]:
    if node.module == PACKAGE:
        return [alias.name for alias in node.names]
    return [node.module.split(".")[1]] if (node.module or "").startswith(f"{PACKAGE}.") else []


def _is_docstring(statement: ast.stmt) -> bool:
    value = getattr(statement, "value", None)
    return (
        isinstance(statement, ast.Expr)
        and isinstance(value, ast.Constant)
        and isinstance(value.value, str)
    )
