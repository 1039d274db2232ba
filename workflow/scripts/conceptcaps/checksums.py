"""Checksums of the files that leave the workflow."""

import hashlib
from pathlib import Path

from conceptcaps.io import atomic

SUMS = "SHA256SUMS"


def write_sums(folder: Path) -> dict[str, str]:
    """Write SHA256SUMS over every other file of a folder, as `sha256sum --check` reads it.

    Returns:
        {path relative to the folder: sha256 in hex}.
    """
    files = sorted(path for path in folder.rglob("*") if path.is_file() and path.name != SUMS)
    sums = {path.relative_to(folder).as_posix(): file_sha256(path) for path in files}
    with atomic(folder / SUMS) as temporary:
        temporary.write_text("".join(f"{digest}  {name}\n" for name, digest in sums.items()))
    return sums


def file_sha256(path: Path) -> str:
    """Return the sha256 of a file's bytes in hex."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
