"""The whole history of one clip: `python -m conceptcaps.explain ID [--results DIR] [--json]`."""

import argparse
import json
import sys
import textwrap
from pathlib import Path

import pyarrow as pa

from conceptcaps.categories import PRESENT_PROB_OF, TAGS_OF
from conceptcaps.errors import InputError, nearest
from conceptcaps.io import read_json, read_rows, read_table
from conceptcaps.schemas import AUDIO, CAPTIONS, CLAP, DATASET, LEDGER, TAGS

_ARM = "conceptcaps"  # the arm that the dataset is made from
_NEAREST = 3  # MusicCaps rows shown
_UNSHOWN = ("audio", "codes", "audio_embedding", "text_embedding")  # long


def explain(results: Path, item: str) -> dict:
    """Return the history of a tag set, through every stage that it reached.

    Keys: `id, outcome, tags, sampling, nearest, drafts, caption, audio, scores, dataset, run`; a
    stage that has no row of the item is null. `nearest` are the distilled MusicCaps rows whose tags
    have the largest Jaccard index with the item's. The outcome is 'in the dataset' or where and why
    the item was lost, by the ledgers.

    Args:
        results: the run's directory.
        item: id of a tag set, which is that of its caption and clip; a unique beginning will do.

    Raises:
        InputError: there is no such run or no such item.
    """
    tag_table = results / "tags/tags.parquet"
    if not tag_table.is_file():
        raise InputError(
            f"{tag_table}: there is no such file. Say with --results which run is meant, such as "
            "results/mini."
        )
    ids = read_table(tag_table, ["id"])["id"].to_pylist()
    item = _whole_id(item, ids, tag_table)
    tags = _row(tag_table, item, TAGS)
    found = {
        "id": item,
        "tags": tags,
        "sampling": _plan(results / "tags/plan.json"),
        "nearest": _nearest_pairs(results / "distill/pairs.parquet", tags),
        "drafts": _rows_in(results / f"captions/{_ARM}/drafts", item),
        "caption": _first(results / f"captions/{_ARM}", item, CAPTIONS),
        "audio": _first(results / f"audio/{_ARM}", item, AUDIO),
        "scores": _first(results / f"scores/{_ARM}/clap", item, CLAP),
        "dataset": _row(results / "conceptcaps.parquet", item, DATASET),
        "run": _run(results / "run/provenance.json"),
    }
    return found | {"outcome": _outcome(results, item, found)}


def _whole_id(item: str, ids: list[str], table: Path) -> str:
    matching = [known for known in ids if known.startswith(item)] if item else []
    if item in matching:
        return item
    if len(matching) == 1:
        return matching[0]
    if matching:
        raise InputError(f"'{item}': {len(matching)} ids in {table} begin so. Give more of it.")
    raise InputError(f"'{item}': there is no such id in {table}.{nearest(item, ids)}")


def _row(path: Path, item: str, schema: pa.Schema) -> dict | None:
    """Return the item's row of a table and its file, None where it has none; long columns not."""
    if not path.is_file():
        return None
    ids = read_table(path, ["id"])["id"].to_pylist()
    if item not in ids:
        return None
    names = [name for name in schema.names if name not in _UNSHOWN]
    (row,) = read_table(path, names).slice(ids.index(item), 1).to_pylist()
    return {**row, "file": path.as_posix()}


def _first(directory: Path, item: str, schema: pa.Schema) -> dict | None:
    """Return the item's row in whichever shard of a directory holds it."""
    for path in sorted(directory.glob("[0-9]*.parquet")):
        if row := _row(path, item, schema):
            return row
    return None


def _rows_in(directory: Path, item: str) -> list[dict]:
    """Return all rows of the item in the shards of a directory, in their order."""
    for path in sorted(directory.glob("*.parquet")):
        rows = [row for row in read_rows(path) if row["id"] == item]
        if rows:
            return rows
    return []


def _plan(path: Path) -> dict | None:
    """Return the settings and seed that the sets were sampled with."""
    plan = read_json(path) if path.is_file() else None
    return {key: plan[key] for key in ("tags", "seed") if key in plan} if plan else None


def _nearest_pairs(path: Path, tags: dict) -> list[dict]:
    if not path.is_file():
        return []
    own = set(tags["aspect_list"])
    rows = read_rows(path, ["id", "ytid", "aspect_list", "split"])
    for row in rows:
        other = set(row["aspect_list"])
        row["jaccard"] = len(own & other) / len(own | other)
    rows.sort(key=lambda row: (-row["jaccard"], row["id"]))
    return rows[:_NEAREST]


def _run(path: Path) -> dict | None:
    record = read_json(path) if path.is_file() else None
    return {key: record[key] for key in ("run_id", "code", "models", "seed")} if record else None


def _outcome(results: Path, item: str, found: dict) -> str:
    if found["dataset"]:
        return "in the dataset"
    for stage in ("captions", "audio"):
        entry = _first(results / f"{stage}/{_ARM}/ledger", item, LEDGER)
        if entry and entry["status"] != "ok":
            return f"lost in {stage}: {entry['status']}, {entry['reason']}"
    reached = [stage for stage in ("caption", "audio", "scores") if found[stage]]
    return f"not in the dataset; has {', '.join(reached) or 'tags only'}"


def page(found: dict) -> str:
    """Return a history as text."""
    tags, run = found["tags"], found["run"]
    lines = [f"clip {found['id']}: {found['outcome']}", "", "1. tags: drawn from the tag model"]
    for category, column in TAGS_OF.items():
        lines.append(f"   {category + ':':<12}{', '.join(tags[column]) or '-'}")
    given = ", ".join(tags["given"])
    lines.append(f"   sampled {f'given {given}' if given else 'freely'}, seed {tags['seed']}")
    for key, value in ((found["sampling"] or {}).get("tags") or {}).items():
        lines.append(f"   {key}: {value}")
    lines.append("   nearest MusicCaps rows, by the Jaccard index of the tags:")
    for row in found["nearest"]:
        lines.append(
            f"   {row['jaccard']:.2f} {row['ytid']} ({row['split']}): "
            f"{', '.join(row['aspect_list'])}"
        )
    lines += ["", "2. caption: written for the tags; the first draft that passes the gate"]
    for draft in found["drafts"]:
        recall = draft["tag_recall"]
        named = "" if recall is None else f" (it names {100 * recall:.0f} % of the tags)"
        said = f", {draft['reason']}" if draft["reason"] else ""
        lines.append(f"   draft {draft['attempt']}: {draft['status']}{said}{named}")
        lines += _wrapped(draft["caption"])
    lines += _stage(found["caption"], ("model", "seed", "n_tokens", "prompt", "caption", "file"))
    lines += ["", "3. clip: played from the caption", *_stage(found["audio"], None)]
    lines += [
        "",
        "4. scores: agreement of caption and clip, cosine of CLAP",
        *_stage(found["scores"], None),
    ]
    lines += ["", "5. dataset"]
    lines += _heard(found["dataset"])
    lines += _stage(found["dataset"], ("split", "verified", "audio_shard", "audio_row", "licence"))
    if run:
        code = run["code"]
        changed = " with changes" if code["dirty"] else ""
        lines += ["", f"run {run['run_id']}, global seed {run['seed']}"]
        lines.append(f"   code: {code['commit']}{changed}")
        for where, model in run["models"].items():
            if model["id"] is None:
                continue
            lines.append(
                f"   {where}: {model['id']} {model['revision'] or ''} "
                f"{model['resolved_commit'] or ''}".rstrip()
            )
    return "\n".join(lines)


def _heard(row: dict | None) -> list[str]:
    """Return a line of the probabilities that the tags are heard, where the audit judged any."""
    if row is None:
        return []
    heard = [
        f"{tag} {'not judged' if p is None else f'{p:.2f}'}"
        for category, column in TAGS_OF.items()
        for tag, p in zip(row[column], row[PRESENT_PROB_OF[category]] or [], strict=False)
    ]
    return [f"   probability that a tag is heard: {', '.join(heard)}"] if heard else []


def _stage(row: dict | None, keys) -> list[str]:
    """Return a row's values, one a line; `keys` chooses and orders them, None: all but the id."""
    if row is None:
        return ["   none"]
    shown = [key for key in (keys or row) if key != "id" and row.get(key) is not None]
    lines = []
    for key in shown:
        value = row[key]
        if isinstance(value, str) and len(value) > 80:
            lines += [f"   {key}:", *_wrapped(value)]
        else:
            shown_value = f"{value:.4g}" if isinstance(value, float) else value
            lines.append(f"   {key}: {shown_value}")
    return lines


def _wrapped(text: str) -> list[str]:
    return textwrap.wrap(text, 100, initial_indent="     ", subsequent_indent="     ")


def main(arguments: list[str]) -> None:
    """Print the history of one clip."""
    parser = argparse.ArgumentParser(prog="python -m conceptcaps.explain", description=__doc__)
    parser.add_argument("id", help="id of a clip, or a beginning that no other id has")
    parser.add_argument("--results", type=Path, default=Path("results"), help="a run's directory")
    parser.add_argument("--json", action="store_true", help="print JSON instead of text")
    options = parser.parse_args(arguments)
    try:
        found = explain(options.results, options.id)
    except InputError as error:
        raise SystemExit(f"error: {error}") from None
    print(json.dumps(found, indent=2, ensure_ascii=False) if options.json else page(found))


if __name__ == "__main__":
    main(sys.argv[1:])
