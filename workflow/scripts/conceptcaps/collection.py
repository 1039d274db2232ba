"""Captions that no language model writes here: human, from a file, or made by rule."""

import csv
from pathlib import Path

from conceptcaps import arms, baselines, captions, io, schemas
from conceptcaps.errors import InputError, nearest

COLUMNS = ["id", "ytid", "caption", "aspect_list", "split"]


def collect_shard(
    *,
    pairs: str | Path,
    shard: int,
    shard_items: int,
    items: int,
    arm: str,
    brought: str | Path | None,
    min_yield: float,
    output: str | Path,
    ledger: str | Path,
    drafts: str | Path,
) -> None:
    """Write the captions of rows [shard * shard_items, ...) of MusicCaps' tag sets, up to `items`.

    The tables are those of `captions.generate_shard`; a caption is its own only draft.

    Args:
        pairs: table `schemas.PAIRS`.
        shard: number of the shard, from 0.
        shard_items: tag sets a shard; the last one may have fewer.
        items: tag sets up to here.
        arm: one of `arms.collected`.
        brought: CSV of LP-MusicCaps' captions, for its arms: `ytid` and a column an instruction.
        min_yield: share of items, in [0, 1], that need a caption.
        output: table `schemas.CAPTIONS` to write.
        ledger: table `schemas.LEDGER` to write.
        drafts: table `schemas.DRAFTS` to write.

    Raises:
        InputError: there are no such rows, the file cannot be read or lacks a column, or too few
            items have a caption.
    """
    first, last = shard * shard_items, min((shard + 1) * shard_items, items)
    requests = captions.shard_rows(pairs, first, last, COLUMNS)
    rows = _collect(requests, arm, brought)
    found = {row["id"] for row in rows}
    io.write_table(output, rows, schemas.CAPTIONS)
    judged = {"attempt": 0, "status": "ok", "reason": "", "tag_recall": None}
    io.write_table(
        drafts,
        [{name: (row | judged)[name] for name in schemas.DRAFTS.names} for row in rows],
        schemas.DRAFTS,
    )
    missing = {"status": "missing", "reason": f"no caption of its clip in {brought}"}
    io.write_ledger(
        ledger,
        [
            {"id": item["id"], "status": "ok", "reason": ""}
            | ({} if item["id"] in found else missing)
            for item in requests
        ],
        min_yield=min_yield,
    )


def collect_heldout(
    *, pairs: str | Path, items: int, arm: str, brought: str | Path | None, output: str | Path
) -> None:
    """Write the captions of the first `items` pairs of split "test"; an empty one where none is.

    See `collect_shard` for the arguments.

    Raises:
        InputError: there are no test pairs, or the file cannot be read or lacks a column.
    """
    requests = captions.heldout_rows(pairs, items, COLUMNS)
    rows = {row["id"]: row for row in _collect(requests, arm, brought)}
    empty = _row(arm, brought, "", "")
    io.write_table(
        output,
        [rows.get(item["id"], empty | {"id": item["id"]}) for item in requests],
        schemas.CAPTIONS,
    )


def _collect(requests: list[dict], arm: str, brought: str | Path | None) -> list[dict]:
    if arm == "musiccaps":
        texts = {item["id"]: item["caption"] for item in requests}
    elif arm in baselines.RULES:
        texts = {item["id"]: baselines.RULES[arm](item["aspect_list"]) for item in requests}
    else:
        of_clip = read_brought(brought, arms.COLUMN[arm])
        texts = {item["id"]: of_clip.get(item["ytid"], "") for item in requests}
    return [_row(arm, brought, key, text) for key, text in texts.items() if text.strip()]


def _row(arm: str, brought, key: str, text: str) -> dict:
    source = "human" if arm == "musiccaps" else arm
    if arm in arms.COLUMN:
        source = f"LP-MusicCaps ({Path(brought).name})"
    return {"id": key, "caption": text, "prompt": "", "n_tokens": None, "seed": None,
            "model": source}  # fmt: skip


def read_brought(path: str | Path, column: str) -> dict[str, str]:
    """Return {ytid: caption} of a column of LP-MusicCaps' own table.

    Raises:
        InputError: the file cannot be read, or it lacks a column.
    """
    try:
        with Path(path).open(newline="", encoding="utf-8-sig") as file:
            reader = csv.DictReader(file)
            names = reader.fieldnames or []
            for name in ("ytid", column):
                if name not in names:
                    raise InputError(
                        f"arms.lp_musiccaps: {path} has no column '{name}'.{nearest(name, names)} "
                        f"It needs ytid and {', '.join(arms.COLUMN.values())}."
                    )
            return {row["ytid"]: (row[column] or "").strip() for row in reader}
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise InputError(f"arms.lp_musiccaps: {path} cannot be read as CSV ({error}).") from error
