"""Checksums of the files that leave the workflow."""

import hashlib
from pathlib import Path

from conceptcaps.io import atomic

SUMS = "SHA256SUMS"


def files_of(folder: Path) -> dict[str, Path]:
    """Return {path relative to the folder: path} of what is published.

    Left out: hidden files, such as the time stamp that Snakemake puts into a directory it made, and
    the sums themselves.
    """
    found = {
        path.relative_to(folder).as_posix(): path
        for path in sorted(folder.rglob("*"))
        if path.is_file() and path.name != SUMS
    }
    return {name: path for name, path in found.items() if not f"/{name}".count("/.")}


def write_sums(folder: Path) -> dict[str, str]:
    """Write SHA256SUMS over the other files of a folder, as `sha256sum --check` reads it.

    Returns:
        {path relative to the folder: sha256 in hex}.
    """
    sums = {name: file_sha256(path) for name, path in files_of(folder).items()}
    with atomic(folder / SUMS) as temporary:
        temporary.write_text("".join(f"{digest}  {name}\n" for name, digest in sums.items()))
    return sums


def file_sha256(path: Path) -> str:
    """Return the sha256 of a file's bytes in hex."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
