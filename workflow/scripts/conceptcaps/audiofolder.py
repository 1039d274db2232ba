"""Folders of audio files, also in the layout of the `datasets` library's audiofolder.

There, a `metadata.csv` has the columns `file_name` (path in the folder) and `caption`; others are
ignored. Standard library only: the rules read it, too.
"""

import csv
from pathlib import Path

from conceptcaps.errors import InputError, nearest

SUFFIXES = (".wav", ".au", ".flac", ".mp3", ".ogg", ".aif", ".aiff")
METADATA = "metadata.csv"
_COLUMNS = ("file_name", "caption")


def read_captions(folder: str | Path) -> dict[str, str]:
    """Return {file name: caption} of a folder's `metadata.csv`, in its order.

    Raises:
        InputError: there is no such file, it lacks a column, or names a file twice or none.
    """
    path = Path(folder) / METADATA
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            rows = list(csv.DictReader(file))
            columns = rows[0].keys() if rows else ()
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise InputError(
            f"{path}: cannot be read ({error}). A folder of clips needs it, with the columns "
            f"{' and '.join(_COLUMNS)}."
        ) from error
    for column in _COLUMNS:
        if column not in columns:
            raise InputError(
                f"{path}: has no rows or no column '{column}'.{nearest(column, columns)}"
            )
    names = [row["file_name"] for row in rows]
    again = next((name for k, name in enumerate(names) if name in names[:k] or not name), None)
    if again is not None:
        raise InputError(f"{path}: file_name '{again}' stands there twice, or is empty.")
    return {row["file_name"]: row["caption"] or "" for row in rows}


def list_audio(folder: str | Path) -> list[Path]:
    """Return the audio files in a folder and the folders in it, by name.

    Raises:
        InputError: it is no folder, or there is none in it.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise InputError(f"{folder} is not a folder. Give a folder of audio files.")
    found = sorted(
        path
        for path in folder.rglob("*")
        if path.suffix.lower() in SUFFIXES and not path.name.startswith(".") and path.is_file()
    )
    if not found:
        raise InputError(f"{folder}: holds no audio files ({', '.join(SUFFIXES)}).")
    return found
