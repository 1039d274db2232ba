"""Lay the dataset out as a Hugging Face folder: configs, splits, files, card, metadata."""

import hashlib
import os
import shutil
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import yaml

from conceptcaps import build as builds
from conceptcaps.card import KEYWORDS, PAPER, caption, config_name, summary, write_card
from conceptcaps.checksums import write_sums
from conceptcaps.croissant import write_croissant
from conceptcaps.datasheet import write_citation, write_datasheet
from conceptcaps.errors import InputError
from conceptcaps.evidence import read_evidence
from conceptcaps.hubfields import AUDIO_FIELDS, TEXT_FIELDS, features
from conceptcaps.io import PARQUET, atomic, iter_batches, read_table, write_json
from conceptcaps.leakage import SPLITS
from conceptcaps.licences import dataset_licence
from conceptcaps.runlog import progress

TEXT_FEATURES, AUDIO_FEATURES = features(TEXT_FIELDS), features(AUDIO_FIELDS)
_CHUNK_ROWS = 1000  # rows without audio handled at a time
_CHUNK_CLIPS = 8  # clips read from a shard at a time
_ROW_GROUP_BYTES = 64 << 20  # at most this much of each open file waits in memory


@dataclass(frozen=True)
class Spec:
    """What the folder is called, into what it is cut and under which licence it stands."""

    name: str  # pretty name on the card
    version: str  # MAJOR.MINOR.PATCH
    subsets: dict[str, float]  # config name -> share of each split, (0, 1)
    max_shard_mb: float  # size of one parquet file, 10^6 bytes, > 0
    licence: str | None  # the hub's identifier, such as cc-by-nc-4.0; None: derived


def export_hub(
    *, dataset, audio, evidence, figures, captions, config, provenance, spec: Spec, output
) -> None:
    """Write the folder that `datasets.load_dataset(folder, config_name)` reads.

    Configs: `default`, each subset, `audio` and each subset with `-audio`. A subset is the first
    part of each split in the order of a hash of the ids, so that the smaller lies in the larger.

    Args:
        dataset: the dataset table; its `audio_shard` is relative to its directory.
        audio: audio tables, one per shard, read a few clips at a time.
        evidence: metrics files and the TCAV table, for the card.
        figures: PNG files, each with an SVG beside it, for the card.
        captions: the report's captions of the figures, in their order.
        config: the run's config.yaml, copied into the folder.
        provenance: the run's provenance.json, copied into the folder.
        spec: name, version, subsets, file size, licence.
        output: the folder; it appears when it is complete.

    Raises:
        InputError: the table names a clip that the audio tables do not hold, a tag set lies in two
            splits, or the licence allows what an input's licence forbids.
    """
    settings = yaml.safe_load(Path(config).read_text())
    table = read_table(dataset)
    splits = np.array(table["split"].to_pylist())
    members = {"default": np.ones(len(table), bool)}
    for name, share in spec.subsets.items():
        members[name] = subset(table["id"].to_pylist(), splits, share)
    build = builds.describe(
        table,
        counts=builds.split_counts(members, splits),
        name=spec.name,
        version=spec.version,
        licence=dataset_licence(settings, spec.licence),
        settings=settings,
    )
    with atomic(output) as folder:
        folder.mkdir()
        max_bytes = int(spec.max_shard_mb * 1e6)
        root = Path(dataset).parent
        for with_audio, chunks in (False, _texts(table)), (True, clips_of(table, audio, root)):
            _write_configs(folder / "data", chunks, members, splits, with_audio, max_bytes)
        shutil.copyfile(config, folder / "config.yaml")
        shutil.copyfile(provenance, folder / "provenance.json")
        write_json(folder / "leakage.json", build.leakage)
        pictures = _copy_figures(folder / "figures", figures, captions, settings)
        write_card(
            folder / "README.md", build=build, evidence=read_evidence(evidence), pictures=pictures
        )
        write_datasheet(folder / "DATASHEET.md", build)
        write_citation(folder / "CITATION.cff", build)
        write_croissant(
            folder,
            name=build.name,
            description=summary(build),
            licence=build.licence,
            citation=PAPER,
            keywords=KEYWORDS,
            version=build.version,
        )
        write_sums(folder)


def _copy_figures(folder: Path, figures, captions, settings: dict) -> dict[str, str]:
    """Copy PNG and SVG of every figure; return {path of the PNG in the hub folder: caption}."""
    folder.mkdir()
    pictures = {}
    for picture, template in zip(map(Path, figures), map(Path, captions), strict=True):
        for path in (picture, picture.with_suffix(".svg")):
            shutil.copyfile(path, folder / path.name)
        pictures[f"{folder.name}/{picture.name}"] = caption(template, settings)
    return pictures


def _write_configs(folder, chunks, members, splits, with_audio, max_bytes) -> None:
    """Write every config, without or with audio, in one pass over (row numbers, rows)."""
    schema = (AUDIO_FEATURES if with_audio else TEXT_FEATURES).arrow_schema
    writers = {
        (name, split): _SplitFiles(
            folder / config_name(name, audio=with_audio),
            split,
            schema,
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


def clips_of(
    table: pa.Table, shards: Iterable[str | Path], root: Path
) -> Iterator[tuple[np.ndarray, pa.Table]]:
    """Yield (row numbers [k] in `table`, [k] rows with their audio), a few clips at a time.

    Args:
        table: the dataset table.
        shards: audio tables.
        root: the dataset table's directory, which its `audio_shard` is relative to.

    Raises:
        InputError: a clip is not where the table says.
    """
    places = zip(table["audio_shard"].to_pylist(), table["audio_row"].to_pylist(), strict=True)
    row_at = {place: row for row, place in enumerate(places)}
    ids = table["id"].to_pylist()
    for shard in progress(shards, what="audio shards"):
        name, offset = Path(os.path.relpath(shard, root)).as_posix(), 0
        for batch in iter_batches(shard, _CHUNK_CLIPS, ["id", "audio", "codes", "codebooks"]):
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
            yield rows, _with_audio(table.take(rows), batch.take(pa.array(kept, pa.int64())))
    if row_at:
        name, row = next(iter(row_at))
        raise InputError(
            f"{len(row_at)} clips of the dataset are in none of the audio tables (first: row {row} "
            f"of {root / name}). Run export_dataset again."
        )


def _with_audio(rows: pa.Table, clips: pa.RecordBatch) -> pa.Table:
    """Put the clips' bytes in the place of the file names, and their codes behind."""
    paths = rows["file_name"].combine_chunks()  # the name stays as the audio's path
    named = pa.StructArray.from_arrays([clips["audio"].field("bytes"), paths], ["bytes", "path"])
    rows = rows.set_column(rows.column_names.index("file_name"), "file_name", named)
    for column in ("codes", "codebooks"):
        rows = rows.append_column(column, clips[column])
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
