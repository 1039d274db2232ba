"""A folder of clips in the layout of the `datasets` library's audiofolder.

Audio files, in folders or not, and a `metadata.csv` with the columns `file_name` (path in the
folder) and `caption`; others are ignored. Standard library only: the rules read it, too.
"""

import csv
from pathlib import Path

from conceptcaps.errors import InputError, nearest

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
