"""A hash of the code that a rule runs: its script and every project module that it reaches."""

import ast
import hashlib
from pathlib import Path

PACKAGE = "conceptcaps"


def script_fingerprint(script: str | Path) -> str:
    """Return a hash of the syntax trees of `script` and of the project modules that it imports.

    Comments, docstrings and formatting do not change it; neither does a new modification time. The
    modules are looked for in the `conceptcaps` directory beside the script, transitively.
    """
    script = Path(script)
    return _fingerprint(script, script.parent / PACKAGE)


def module_fingerprint(module: str | Path) -> str:
    """Return the same hash for a module of the package, given its `__file__`."""
    return _fingerprint(Path(module), Path(module).parent)


def _fingerprint(start: Path, package: Path) -> str:
    pending, trees = [start], {}
    while pending:
        path = pending.pop()
        if path in trees:
            continue
        tree = ast.parse(path.read_text())
        trees[path] = ast.dump(_without_docstrings(tree))
        modules = {package / f"{name}.py" for name in _imports(tree)}
        pending.extend(module for module in modules if module.is_file())
    joined = "\n".join(f"{path.name}\n{trees[path]}" for path in sorted(trees))
    return hashlib.sha256(joined.encode()).hexdigest()[:16]


def _imports(tree: ast.Module) -> set[str]:
    names = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and node.module == PACKAGE:
            names.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and (node.module or "").startswith(f"{PACKAGE}."):
            names.add(node.module.split(".")[1])
    return names


def _without_docstrings(tree: ast.Module) -> ast.Module:
    documented = (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)
    for node in ast.walk(tree):
        if isinstance(node, documented) and ast.get_docstring(node, clean=False) is not None:
            node.body = node.body[1:] or [ast.Pass()]
    return tree
