"""Lay the dataset out as a Hugging Face folder: configs, splits, parquet files and a card."""

import hashlib
import os
import shutil
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import yaml
from datasets import Audio, Features, List, Value

from conceptcaps.card import config_name, write_card
from conceptcaps.errors import InputError
from conceptcaps.evidence import read_evidence
from conceptcaps.io import PARQUET, atomic, iter_batches, read_table
from conceptcaps.runlog import progress
from conceptcaps.schemas import TAGS_OF

SPLITS = ("train", "validation", "test")
TEXT = Features(  # the published card's fields
    {
        "id": Value("string"),
        "caption": Value("string"),
        "aspect_list": Value("string"),
        **{column: List(Value("string")) for column in TAGS_OF.values()},
    }
)
RECORD = Features(  # this workflow's additions, behind them
    {
        "clap_score": Value("float64"),
        "duration_s": Value("float64"),
        "seed": Value("uint64"),
        "provenance": Value("string"),
    }
)
TEXT_FEATURES = Features({**TEXT, **RECORD})
AUDIO_FEATURES = Features({**TEXT, "file_name": Audio(), **RECORD})
_CHUNK_ROWS = 1000  # rows without audio handled at a time
_CHUNK_CLIPS = 8  # clips read from a shard at a time
_ROW_GROUP_BYTES = 64 << 20  # at most this much of each open file waits in memory


@dataclass(frozen=True)
class Spec:
    """What the folder is called, into what it is cut and under which licence it stands."""

    name: str  # pretty name on the card
    subsets: dict[str, float]  # config name -> share of each split, (0, 1)
    max_shard_mb: float  # size of one parquet file, 10^6 bytes, > 0
    licence: str  # the hub's identifier, such as cc-by-nc-4.0


def export_hub(*, dataset, audio, evidence, config, spec: Spec, output) -> None:
    """Write the folder that `datasets.load_dataset(folder, config_name)` reads.

    Configs: `default`, each subset, `audio` and each subset with `-audio`. A subset is the first
    part of each split in the order of a hash of the ids, so that the smaller lies in the larger.

    Args:
        dataset: the dataset table; its `audio_shard` is relative to its directory.
        audio: audio tables, one per shard, read a few clips at a time.
        evidence: metrics files and the TCAV table, for the card.
        config: the run's config.yaml, copied into the folder.
        spec: name, subsets, file size, licence.
        output: the folder; it appears when it is complete.

    Raises:
        InputError: the table names a clip that the audio tables do not hold, or the licence allows
            what an input's licence forbids.
    """
    settings = yaml.safe_load(Path(config).read_text())
    table = read_table(dataset)
    splits = np.array(table["split"].to_pylist())
    members = {"default": np.ones(len(table), bool)}
    for name, share in spec.subsets.items():
        members[name] = subset(table["id"].to_pylist(), splits, share)
    with atomic(output) as folder:
        folder.mkdir()
        write_card(
            folder / "README.md",
            counts={
                name: {split: int((chosen & (splits == split)).sum()) for split in SPLITS}
                for name, chosen in members.items()
            },
            hours=pc.sum(table["duration_s"]).as_py() / 3600,
            run_id=table["provenance"][0].as_py(),
            licence=spec.licence,
            name=spec.name,
            settings=settings,
            evidence=read_evidence(evidence),
        )
        shutil.copyfile(config, folder / "config.yaml")
        max_bytes = int(spec.max_shard_mb * 1e6)
        root = Path(dataset).parent
        for with_audio, chunks in (False, _texts(table)), (True, _clips(table, audio, root)):
            _write_configs(folder / "data", chunks, members, splits, with_audio, max_bytes)


def _write_configs(folder, chunks, members, splits, with_audio, max_bytes) -> None:
    """Write every config, without or with audio, in one pass over (row numbers, rows)."""
    features = AUDIO_FEATURES if with_audio else TEXT_FEATURES
    writers = {
        (name, split): _SplitFiles(
            folder / config_name(name, audio=with_audio),
            split,
            features.arrow_schema,
            max_bytes=max_bytes,
        )
        for name in members
        for split in SPLITS
    }
    for rows, chunk in chunks:
        for (name, split), writer in writers.items():
            wanted = members[name][rows] & (splits[rows] == split)
            writer.add(chunk.filter(pa.array(wanted)))
    for writer in writers.values():
        writer.close()


def subset(ids: list[str], splits: np.ndarray, share: float) -> np.ndarray:
    """Return a mask [N]: of each split the floor(share * rows), at least 1, first by id hash."""
    order = sorted(range(len(ids)), key=lambda i: hashlib.sha256(ids[i].encode()).digest())
    chosen = np.zeros(len(ids), bool)
    for split in SPLITS:
        rows = [i for i in order if splits[i] == split]
        chosen[rows[: max(1, int(share * len(rows) + 1e-9))]] = True
    return chosen


def _texts(table: pa.Table) -> Iterator[tuple[np.ndarray, pa.Table]]:
    """Yield (row numbers [k] in `table`, [k] rows without audio)."""
    table = table.select(list(TEXT_FEATURES)).cast(TEXT_FEATURES.arrow_schema)
    for start in range(0, len(table), _CHUNK_ROWS):
        rows = table.slice(start, _CHUNK_ROWS)
        yield np.arange(start, start + len(rows)), rows


def _clips(
    table: pa.Table, shards: Iterable[str | Path], root: Path
) -> Iterator[tuple[np.ndarray, pa.Table]]:
    """Yield (row numbers [k] in `table`, [k] rows with their audio), a few clips at a time."""
    places = zip(table["audio_shard"].to_pylist(), table["audio_row"].to_pylist(), strict=True)
    row_at = {place: row for row, place in enumerate(places)}
    ids = table["id"].to_pylist()
    for shard in progress(shards, what="audio shards"):
        name, offset = Path(os.path.relpath(shard, root)).as_posix(), 0
        for batch in iter_batches(shard, _CHUNK_CLIPS, ["id", "audio"]):
            at = {i: row_at.pop((name, offset + i), None) for i in range(len(batch))}
            kept = [i for i, row in at.items() if row is not None]
            rows = np.array([at[i] for i in kept], int)
            for i, row in zip(kept, rows, strict=True):
                if batch["id"][i].as_py() != ids[row]:
                    raise InputError(
                        f"{shard}: row {offset + i} is clip '{batch['id'][i]}', the dataset "
                        f"expects '{ids[row]}': the shard was made again. Run export_dataset again."
                    )
            offset += len(batch)
            audio = batch["audio"].take(pa.array(kept, pa.int64()))
            yield rows, _with_audio(table.take(rows), audio)
    if row_at:
        name, row = next(iter(row_at))
        raise InputError(
            f"{len(row_at)} clips of the dataset are in none of the audio tables (first: row {row} "
            f"of {root / name}). Run export_dataset again."
        )


def _with_audio(rows: pa.Table, audio: pa.StructArray) -> pa.Table:
    """Put the clips' bytes in the place of the file names; the name stays as the audio's path."""
    paths = rows["file_name"].combine_chunks()
    named = pa.StructArray.from_arrays([audio.field("bytes"), paths], ["bytes", "path"])
    rows = rows.set_column(rows.column_names.index("file_name"), "file_name", named)
    return rows.select(list(AUDIO_FEATURES)).cast(AUDIO_FEATURES.arrow_schema)


class _SplitFiles:
    """The parquet files of one split of one config, written row group by row group.

    The number of files is part of their names, so they get these when the last one is closed. A
    split without rows has no file: the datasets library loads no empty split.
    """

    def __init__(self, folder: Path, split: str, schema: pa.Schema, *, max_bytes: int):
        folder.mkdir(parents=True, exist_ok=True)
        self.folder, self.split, self.schema, self.max_bytes = folder, split, schema, max_bytes
        self.waiting, self.waiting_bytes = [], 0
        self.files, self.file, self.file_bytes = [], None, 0

    def add(self, rows: pa.Table) -> None:
        """Append rows; they are written when a row group is full."""
        if self.waiting_bytes + rows.nbytes > min(_ROW_GROUP_BYTES, self.max_bytes):
            self._flush()
        if len(rows):
            self.waiting.append(rows)
            self.waiting_bytes += rows.nbytes

    def close(self) -> None:
        """Write what waits and give the files their final names."""
        self._flush()
        if self.file is not None:
            self.file.close()
        for i, path in enumerate(self.files):
            path.rename(self.folder / f"{self.split}-{i:05d}-of-{len(self.files):05d}.parquet")

    def _flush(self) -> None:
        if not self.waiting:
            return
        if self.file is None or self.file_bytes + self.waiting_bytes > self.max_bytes:
            self._open()
        self.file.write_table(pa.concat_tables(self.waiting))
        self.file_bytes += self.waiting_bytes
        self.waiting, self.waiting_bytes = [], 0

    def _open(self) -> None:
        if self.file is not None:
            self.file.close()
        self.files.append(self.folder / f"{self.split}-{len(self.files)}.parquet")
        self.file = pq.ParquetWriter(self.files[-1], self.schema, **PARQUET)
        self.file_bytes = 0
