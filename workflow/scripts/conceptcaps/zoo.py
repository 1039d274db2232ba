"""The zoo: a directory of models, and the list of checksums that tells whether it is whole."""

import hashlib
from collections.abc import Iterable
from pathlib import Path

from conceptcaps import io
from conceptcaps.errors import InputError

CHECKSUMS = "SHA256SUMS"


def write_checksums(models: Iterable[str | Path], output: str | Path) -> None:
    """List the SHA-256 of every file of some models, as `sha256sum` does.

    Args:
        models: model directories, below the directory of `output`.
        output: file to write; its paths are relative to its directory, and sorted.
    """
    root = Path(output).parent
    lines = [
        f"{digest}  {path}"
        for path, digest in sorted(
            (path.relative_to(root).as_posix(), _sha256(path))
            for model in models
            for path in _files(Path(model))
        )
    ]
    with io.atomic(output) as temporary:
        temporary.write_text("\n".join(lines) + "\n")


def check(directory: str | Path) -> None:
    """Compare a zoo with its checksums.

    Raises:
        InputError: the list is missing or malformed, or files are missing, changed or not listed;
            the message names each.
    """
    directory = Path(directory)
    listed = _read(directory / CHECKSUMS)
    found = {
        path.relative_to(directory).as_posix(): path
        for path in _files(directory)
        if path != directory / CHECKSUMS
    }
    wrong = [f"{name} is missing" for name in sorted(listed.keys() - found.keys())]
    wrong += [f"{name} is not listed" for name in sorted(found.keys() - listed.keys())]
    wrong += [
        f"{name} has changed"
        for name in sorted(listed.keys() & found.keys())
        if _sha256(found[name]) != listed[name]
    ]
    if wrong:
        raise InputError(
            f"{directory}: {', '.join(wrong)}. Restore it (git checkout -- {directory}), or train "
            "the models again (make models)."
        )


def _read(path: Path) -> dict[str, str]:
    """Return {relative path: checksum}."""
    try:
        lines = path.read_text().splitlines()
        return {name: digest for digest, name in (line.split("  ", 1) for line in lines)}
    except (OSError, ValueError) as error:
        raise InputError(f"{path}: cannot be read as a list of checksums ({error}).") from error


def _files(directory: Path) -> list[Path]:
    """Return the files below a directory, but none that is hidden: Snakemake puts a stamp there."""
    return [
        path for path in directory.rglob("*") if path.is_file() and not path.name.startswith(".")
    ]


def _sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()
