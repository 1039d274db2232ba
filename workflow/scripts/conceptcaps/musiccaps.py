"""The MusicCaps table (Agostinelli et al. 2023): fetched, verified, parsed, or synthetic."""

import ast
import csv
import hashlib
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

from conceptcaps.errors import InputError, nearest
from conceptcaps.io import write_table
from conceptcaps.schemas import CLIPS

FILE_NAME = "musiccaps-public.csv"  # the one file of the hub dataset
COLUMNS = tuple(CLIPS.names)
_BOOLEANS = {"True": True, "False": False}


@dataclass(frozen=True)
class Source:
    """Config section `sources.musiccaps`."""

    kind: str  # hub | file | synthetic
    path: str | None  # dataset id, or CSV
    revision: str | None  # hub only
    sha256: str | None  # of the CSV; None skips the check
    rows: int  # synthetic only: rows to make


def retrieve(source: Source, *, seed: int, output: str | Path) -> None:
    """Write the table as parquet (`schemas.CLIPS`), one row per clip, in the source's order.

    Raises:
        InputError: the source cannot be had, its checksum differs, or it is not such a table.
    """
    if source.kind == "synthetic":
        from conceptcaps.wording import corpus  # the miniature world, else not needed

        write_table(output, corpus(source.rows, seed), CLIPS)
        return
    path = Path(source.path) if source.kind == "file" else _download(source)
    _verify(path, source.sha256)
    rows = read_csv(path)
    print(f"{path}: {len(rows)} clips")
    write_table(output, rows, CLIPS)


def _download(source: Source) -> Path:
    from huggingface_hub import hf_hub_download
    from huggingface_hub.errors import HfHubHTTPError, LocalEntryNotFoundError

    try:
        return Path(
            hf_hub_download(source.path, FILE_NAME, repo_type="dataset", revision=source.revision)
        )
    except (HfHubHTTPError, LocalEntryNotFoundError, OSError) as error:
        raise InputError(
            f"sources.musiccaps: {FILE_NAME} of '{source.path}' at revision '{source.revision}' "
            f"cannot be downloaded ({error}). Check the network, or download it by hand and set "
            "kind: file and path."
        ) from error


def _verify(path: Path, expected: str | None) -> None:
    try:
        found = hashlib.sha256(path.read_bytes()).hexdigest()
    except OSError as error:
        raise InputError(f"sources.musiccaps.path: {path} cannot be read ({error}).") from error
    if expected and found != expected:
        raise InputError(
            f"{path}: its sha256 is {found}, but the config expects {expected}. "
            "If this is the file you mean, put its sum (or null) into sources.musiccaps.sha256."
        )


def read_csv(path: str | Path) -> list[dict]:
    """Read MusicCaps' CSV into rows of `schemas.CLIPS`.

    Raises:
        InputError: an empty file, a missing column, a cell that cannot be parsed, a repeated ytid.
            The message names the file, the line and the column.
    """
    try:
        with Path(path).open(newline="", encoding="utf-8") as file:
            reader = csv.DictReader(file)
            header = reader.fieldnames or []
            if not header:
                raise InputError(f"{path}: is empty. Expected MusicCaps' CSV with a header line.")
            for column in COLUMNS:
                if column not in header:
                    raise InputError(
                        f"{path}: there is no column '{column}'.{nearest(column, header)} "
                        f"Expected: {', '.join(COLUMNS)}."
                    )
            rows = [_parse(row, f"{path}, line {reader.line_num}") for row in reader]
    except UnicodeDecodeError as error:
        raise InputError(f"{path}: is not UTF-8 text ({error}).") from error
    if not rows:
        raise InputError(f"{path}: has a header but no rows.")
    ytid, count = Counter(row["ytid"] for row in rows).most_common(1)[0]
    if count > 1:
        raise InputError(f"{path}: ytid '{ytid}' occurs {count} times; each clip must occur once.")
    return rows


def _parse(row: dict, where: str) -> dict:
    return {
        "ytid": _text(row, "ytid", where),
        "start_s": _integer(row, "start_s", where),
        "end_s": _integer(row, "end_s", where),
        "audioset_positive_labels": row["audioset_positive_labels"],
        "aspect_list": _aspects(row, where),
        "caption": _text(row, "caption", where),
        "author_id": _integer(row, "author_id", where),
        "is_balanced_subset": _boolean(row, "is_balanced_subset", where),
        "is_audioset_eval": _boolean(row, "is_audioset_eval", where),
    }


def _text(row: dict, column: str, where: str) -> str:
    if not (row[column] or "").strip():
        raise InputError(f"{where}: column '{column}' is empty.")
    return row[column].strip()


def _integer(row: dict, column: str, where: str) -> int:
    try:
        return int(row[column])
    except (TypeError, ValueError) as error:
        raise InputError(
            f"{where}: column '{column}' must be a whole number, but is {row[column]!r}."
        ) from error


def _boolean(row: dict, column: str, where: str) -> bool:
    if row[column] not in _BOOLEANS:
        raise InputError(f"{where}: column '{column}' must be True or False, not {row[column]!r}.")
    return _BOOLEANS[row[column]]


def _aspects(row: dict, where: str) -> list[str]:
    cell = row["aspect_list"]
    try:
        value = ast.literal_eval(cell or "")
    except (ValueError, SyntaxError):
        value = None
    if not isinstance(value, list) or not all(isinstance(aspect, str) for aspect in value):
        raise InputError(
            f"{where}: column 'aspect_list' must be a list of quoted texts like ['jazz', 'slow "
            f"tempo'], but is {str(cell)[:60]!r}."
        )
    return value
