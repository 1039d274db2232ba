"""Atomic writers, checked readers and ledgers. A reader never sees half a file."""

import json
import os
import shutil
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from conceptcaps.errors import InputError
from conceptcaps.fingerprint import module_fingerprint
from conceptcaps.schemas import LEDGER
from conceptcaps.shardlock import ShardLock

PARQUET = {"compression": "zstd", "write_page_checksum": True}  # how every table is written


@contextmanager
def atomic(path: str | Path) -> Iterator[Path]:
    """Yield a temporary path beside `path`; on success it replaces `path`, on error it is removed.

    The temporary path may be written as a file or made into a directory.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    _remove(temporary)
    try:
        yield temporary
        if path.is_dir():
            _remove(path)
        temporary.replace(path)
    finally:
        _remove(temporary)


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def write_table(path: str | Path, rows: Iterable[dict] | pa.Table, schema: pa.Schema) -> None:
    """Write rows as parquet with exactly `schema`; row groups of 256 so that audio streams."""
    table = rows if isinstance(rows, pa.Table) else pa.Table.from_pylist(list(rows), schema=schema)
    with atomic(path) as temporary:
        pq.write_table(table.cast(schema), temporary, row_group_size=256, **PARQUET)


def write_stream(path: str | Path, batches: Iterable[list[dict]], schema: pa.Schema) -> None:
    """Write a table batch after batch, a row group each: one batch is in memory."""
    with atomic(path) as temporary, pq.ParquetWriter(temporary, schema, **PARQUET) as writer:
        for rows in batches:
            writer.write_table(pa.Table.from_pylist(rows, schema=schema))


def read_table(path: str | Path, columns: list[str] | None = None) -> pa.Table:
    """Read a parquet table and verify the checksums of what is read.

    Raises:
        InputError: the file is missing, damaged, not parquet or lacks a column.
    """
    with _naming(path):
        return pq.read_table(path, columns=columns, page_checksum_verification=True)


def iter_batches(
    path: str | Path, size: int, columns: list[str] | None = None
) -> Iterator[pa.RecordBatch]:
    """Yield a parquet table in batches of `size` rows and verify their checksums.

    Raises:
        InputError: the file is missing, damaged, not parquet or lacks a column.
    """
    with _naming(path):
        table = pq.ParquetFile(path, page_checksum_verification=True)
        batches = table.iter_batches(size, columns=columns)
    while True:
        with _naming(path):
            batch = next(batches, None)
        if batch is None:
            return
        yield batch


@contextmanager
def _naming(path: str | Path) -> Iterator[None]:
    """Turn what arrow says of a file into one message that names it."""
    try:
        yield
    except (OSError, ValueError, pa.ArrowException) as error:
        raise InputError(
            f"{path}: cannot be read as a parquet table ({error}). If it is damaged, delete it and "
            "run again: it is made anew."
        ) from error


def read_rows(path: str | Path, columns: list[str] | None = None) -> list[dict]:
    """Read a parquet table as a list of dicts."""
    return read_table(path, columns).to_pylist()


def write_json(path: str | Path, value) -> None:
    """Write JSON with sorted keys and 2 spaces, so that equal content is equal bytes."""
    with atomic(path) as temporary:
        temporary.write_text(json.dumps(value, indent=2, sort_keys=True, ensure_ascii=False) + "\n")


def read_json(path: str | Path):
    """Read JSON.

    Raises:
        InputError: the file is missing or is not JSON.
    """
    try:
        return json.loads(Path(path).read_text())
    except (OSError, ValueError) as error:
        raise InputError(f"{path}: cannot be read as JSON ({error}).") from error


def write_ledger(path: str | Path, rows: list[dict], *, min_yield: float) -> None:
    """Write one row per requested item; fail, loudly, when too few of them have status 'ok'.

    The ledger is written before the check, so that the reasons can be read after a failure.

    Raises:
        InputError: fewer than `min_yield` (a share in [0, 1]) of the rows are 'ok'.
    """
    write_table(path, rows, LEDGER)
    lost = [row for row in rows if row["status"] != "ok"]
    if rows and 1 - len(lost) / len(rows) < min_yield:
        first = lost[0]
        kept = Path(path).with_suffix(".failed.parquet")
        shutil.copyfile(path, kept)  # Snakemake deletes the declared ledger of a failed job
        raise InputError(
            f"{path}: {len(lost)} of {len(rows)} items were lost (first: {first['id']}: "
            f"{first['status']}, {first['reason']}), below min_yield {min_yield}. "
            f"All reasons are in {kept}."
        )


class Sidecar:
    """Finished batches of a shard, kept in `<output>.partial/` until the shard is complete.

    The directory is not a declared output, so it survives a failed job, a retry and a kill. `key`
    names everything that the batches depend on: a sidecar left by other settings or by other code
    is discarded, not mixed in. The shard is locked (see `conceptcaps.shardlock`) until `close` or
    the end of the process: a job that outlived its run and its successor do not both write it.
    """

    def __init__(
        self, output: str | Path, *, key: str, code: str | Path, schema: pa.Schema | None = None
    ):
        """Lock and open the sidecar of `output`; forget what another `key` or code left there.

        `code` is the `__file__` of the module that makes the batches. Without a schema there are no
        batches: its holder keeps files of its own in `directory`.
        """
        self.lock = ShardLock(output)
        self.lock.acquire()
        key = f"{key}\n{module_fingerprint(code)}"
        self.directory = Path(f"{output}.partial")
        self.schema = schema
        key_file = self.directory / "key"
        if key_file.is_file() and key_file.read_text() != key:
            shutil.rmtree(self.directory)
        self.directory.mkdir(parents=True, exist_ok=True)
        with atomic(key_file) as temporary:
            temporary.write_text(key)

    def __contains__(self, index: int) -> bool:
        """Tell whether batch `index` is finished; one that cannot be read is made again."""
        path = self._path(index)
        if not path.is_file():
            return False
        try:
            read_table(path)
        except InputError as error:
            print(f"warning: {error}")
            path.unlink()
            return False
        return True

    def write(self, index: int, rows: list[dict]) -> None:
        """Keep the rows of batch `index`."""
        self.lock.check()
        write_table(self._path(index), rows, self.schema)

    def read(self, index: int, columns: list[str] | None = None) -> list[dict]:
        """Return the rows of batch `index`, which is finished; the lock must still be ours."""
        self.lock.check()
        return read_rows(self._path(index), columns)

    def rows(self) -> list[dict]:
        """Return the rows of all finished batches, in batch order; the lock must still be ours."""
        self.lock.check()
        return [row for path in sorted(self.directory.glob("*.parquet")) for row in read_rows(path)]

    def close(self) -> None:
        """Remove the sidecar: its shard has been written.

        A job that waits for the shard inherits the batches instead, and has nothing to make.
        """
        if not self.lock.awaited():
            shutil.rmtree(self.directory)
        self.lock.release()

    def _path(self, index: int) -> Path:
        return self.directory / f"{index:05d}.parquet"
