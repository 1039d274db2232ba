"""Join tags, captions, clips and scores into the dataset table, split by tag set."""

import json
import os
from collections import Counter, defaultdict
from collections.abc import Iterable
from dataclasses import dataclass
from itertools import accumulate
from pathlib import Path

import yaml

from conceptcaps.categories import PRESENT_PROB_OF, TAGS_OF
from conceptcaps.errors import InputError
from conceptcaps.evidence import read_evidence
from conceptcaps.io import read_json, read_rows, write_table
from conceptcaps.licences import dataset_licence
from conceptcaps.schemas import DATASET
from conceptcaps.seeding import item_seed

_AUDITED = (*PRESENT_PROB_OF.values(), "verified")
METADATA_KEY = (
    b"conceptcaps"  # in the table's schema metadata: {"run_id", "evidence": {stage: ...}}
)


@dataclass(frozen=True)
class Spec:
    """The shares of the splits, training gets the rest; the licence."""

    validation: float  # share of the rows, [0, 1)
    test: float  # share of the rows, [0, 1)
    licence: str | None  # a hub identifier; None: derived from the run's sources

    def __post_init__(self):
        """Refuse shares that leave nothing to train on."""
        if not (self.validation >= 0 and self.test >= 0 and self.validation + self.test < 1):
            raise InputError(
                f"dataset.validation {self.validation} and dataset.test {self.test}: both must be "
                "at least 0 and their sum below 1, the rest is for training. Change the config."
            )


def export_table(
    *,
    tags,
    captions,
    audio,
    clap,
    audit,
    config,
    provenance,
    evidence,
    spec: Spec,
    seed: int,
    output,
) -> None:
    """Write one row per clip that has tags, a caption, audio and a CLAP score.

    Rows stand in the order of the audio shards. `audio_shard` is relative to the directory of
    `output`. The schema's metadata holds the run's id and its evidence under `METADATA_KEY`.

    Args:
        tags: the table of tag sets.
        captions: caption tables, one per shard.
        audio: audio tables, one per shard; their bytes are not read.
        clap: CLAP tables, one per shard.
        audit: audit tables; a clip that is in none has null in their columns.
        config: config.yaml of the run; the licence is derived from it.
        provenance: provenance.json of the run.
        evidence: metrics files and the TCAV table (see `conceptcaps.evidence`).
        spec: shares of the splits.
        seed: the global seed; it orders the tag sets before they are cut into splits.
        output: the dataset table.

    Raises:
        InputError: an id occurs twice in a stage, or in a stage but not in the one before it, or
            nothing is left.
    """
    run_id = read_json(provenance)["run_id"]
    licence = dataset_licence(yaml.safe_load(Path(config).read_text()), spec.licence)
    tag_rows = _by_id([tags], ["id", "aspect_list", *TAGS_OF.values()])
    caption_rows = _by_id(captions, ["id", "caption", "model"])
    audio_rows = _by_id(audio, ["id", "duration_s", "seed", "codes_sha256", "model"])
    clap_rows = _by_id(clap, ["id", "clap_score"])
    audit_rows = _by_id(audit, ["id", *_AUDITED])
    _refuse_orphans(caption_rows, "tag set", tag_rows)
    _refuse_orphans(audio_rows, "caption", caption_rows)
    _refuse_orphans(clap_rows, "clip", audio_rows)
    _refuse_orphans(audit_rows, "clip", audio_rows)

    root = Path(output).parent
    rows = [
        {
            **tag_rows[item],
            "id": item,
            "caption": caption_rows[item]["caption"],
            "aspect_list": str(tag_rows[item]["aspect_list"]),
            "file_name": f"audio/{item}.flac",
            "clap_score": clap_rows[item]["clap_score"],
            **{column: audit_rows.get(item, {}).get(column) for column in _AUDITED},
            "audio_shard": Path(os.path.relpath(clip["file"], root)).as_posix(),
            "audio_row": clip["row"],
            "duration_s": clip["duration_s"],
            "seed": clip["seed"],
            "caption_model": caption_rows[item]["model"],
            "audio_model": clip["model"],
            "licence": licence,
            "provenance": run_id,
        }
        for item, clip in audio_rows.items()
        if item in clap_rows
    ]
    if not rows:
        raise InputError(
            f"{output}: no item has tags, a caption, audio and a CLAP score. Look into the ledgers "
            "beside the caption and audio tables for the reasons."
        )
    for row, split in zip(
        rows, split_rows([tag_rows[row["id"]] for row in rows], spec, seed), strict=True
    ):
        row["split"] = split
    _say(rows, tag_rows, caption_rows, audio_rows)
    summary = {"run_id": run_id, "evidence": read_evidence(evidence)}
    metadata = {METADATA_KEY: json.dumps(summary, sort_keys=True).encode()}
    columns = [{name: row[name] for name in DATASET.names} for row in rows]
    write_table(output, columns, DATASET.with_metadata(metadata))


def split_rows(rows: list[dict], spec: Spec, seed: int) -> list[str]:
    """Return the split of each row (with an `aspect_list`, a list of tags); no tag set is in two.

    The tag sets are put in the order of a hash and cut where the number of rows comes closest to
    round(share * N): with distinct sets the counts are exactly these.
    """
    sets = defaultdict(list)  # tag set -> its row numbers
    for i, row in enumerate(rows):
        sets["\x1f".join(sorted(set(row["aspect_list"])))].append(i)
    ordered = [
        sets[key] for key in sorted(sets, key=lambda key: (item_seed(seed, "split", key), key))
    ]
    before = [0, *accumulate(len(group) for group in ordered)]  # rows before a cut at each set

    def nearest_cut(n_rows):
        return min(range(len(before)), key=lambda cut: abs(before[cut] - n_rows))

    validation_end = nearest_cut(round(spec.validation * len(rows)))
    test_end = nearest_cut(before[validation_end] + round(spec.test * len(rows)))
    splits = ["train"] * len(rows)
    for cut, group in enumerate(ordered[:test_end]):
        for i in group:
            splits[i] = "validation" if cut < validation_end else "test"
    return splits


def same_codes(hashes: dict[str, str | None]) -> list[list[str]]:
    """Return the groups of clips {id: hash of its codes} with one hash; one without is alone.

    A shard never holds two such clips (`takes.generate_shard`); different shards may.
    """
    groups = defaultdict(list)
    for clip, sha256 in hashes.items():
        if sha256 is not None:
            groups[sha256].append(clip)
    return [ids for ids in groups.values() if len(ids) > 1]


def _by_id(paths: Iterable[str | Path], columns: list[str]) -> dict[str, dict]:
    """Return {id: row} over a stage's files; each row also has its `file` and its `row` there."""
    rows = {}
    for path in paths:
        for number, row in enumerate(read_rows(path, columns)):
            first = rows.get(row["id"])
            if first:
                raise InputError(
                    f"{path}: row {number}: id '{row['id']}' is already in {first['file']}, row "
                    f"{first['row']}. Delete the file that does not belong to this run; the "
                    "workflow makes missing files again."
                )
            rows[row["id"]] = {**row, "file": str(path), "row": number}
    return rows


def _refuse_orphans(rows: dict[str, dict], parent: str, parents: dict[str, dict]) -> None:
    orphans = [item for item in rows if item not in parents]
    if orphans:
        named = ", ".join(orphans[:5]) + (", ..." if len(orphans) > 5 else "")
        raise InputError(
            f"{rows[orphans[0]]['file']}: {len(orphans)} ids have no {parent}: {named}. The file "
            "comes from another run: delete it and run again."
        )


def _say(rows, tag_rows, caption_rows, audio_rows) -> None:
    counts = Counter(row["split"] for row in rows)
    print(
        f"{len(tag_rows)} tag sets, {len(caption_rows)} captions, {len(audio_rows)} clips -> "
        f"{len(rows)} rows: {counts['train']} train, {counts['validation']} validation, "
        f"{counts['test']} test"
    )
    for twins in same_codes({row["id"]: audio_rows[row["id"]]["codes_sha256"] for row in rows}):
        print(f"warning: clips of exactly the same codes: {', '.join(twins)}")
