"""The dataset as WebDataset shards: per split numbered tar files of clip, caption and record."""

import io
import json
import tarfile
from pathlib import Path

from conceptcaps.checksums import write_sums
from conceptcaps.hub import clips_of
from conceptcaps.hubfields import TEXT_FIELDS
from conceptcaps.io import atomic, read_table, write_json
from conceptcaps.leakage import SPLITS

BLOCK = 512  # of the tar format, bytes


def export_tars(*, dataset, audio, max_shard_mb: float, output) -> None:
    """Write `<split>-000000.tar`, ... with three members a row: id.flac, id.txt, id.json.

    The text is the caption, the JSON holds every field of the hub folder's text configs. Equal
    inputs give equal bytes. `shards.json` counts the rows of each file, `SHA256SUMS` has its sum.

    Args:
        dataset: the dataset table; its `audio_shard` is relative to its directory.
        audio: audio tables, one per shard, read a few clips at a time.
        max_shard_mb: size of one tar file, 10^6 bytes; one row alone may be more.
        output: the folder; it appears when it is complete.

    Raises:
        InputError: the table names a clip that the audio tables do not hold.
    """
    table = read_table(dataset)
    names = [field.name for field in TEXT_FIELDS]
    with atomic(output) as folder:
        folder.mkdir()
        writers = {
            split: _Tars(folder, split, max_bytes=int(max_shard_mb * 1e6)) for split in SPLITS
        }
        for _, rows in clips_of(table, audio, Path(dataset).parent):
            for row in rows.to_pylist():
                record = {name: row[name] for name in names}
                writers[row["split"]].add(
                    row["id"],
                    {
                        "flac": row["file_name"]["bytes"],
                        "txt": row["caption"].encode(),
                        "json": json.dumps(record, sort_keys=True, ensure_ascii=False).encode(),
                    },
                )
        counts = {
            name: n for split in SPLITS for name, n in writers[split].close().items()
        }  # a split without rows has no file
        write_json(folder / "shards.json", counts)
        write_sums(folder)


class _Tars:
    """The tar files of one split; a new one is begun when the next row would not fit."""

    def __init__(self, folder: Path, split: str, *, max_bytes: int):
        self.folder, self.split, self.max_bytes = folder, split, max_bytes
        self.counts: dict[str, int] = {}
        self.file, self.name, self.bytes = None, "", 0

    def add(self, key: str, members: dict[str, bytes]) -> None:
        """Append the members of one row, as `key.extension`."""
        size = sum(BLOCK + -(-len(data) // BLOCK) * BLOCK for data in members.values())
        if self.file is None or self.bytes + size > self.max_bytes:
            self._open()
        for extension, data in members.items():
            info = tarfile.TarInfo(f"{key}.{extension}")  # no time, no owner
            info.size = len(data)
            self.file.addfile(info, io.BytesIO(data))
        self.bytes += size
        self.counts[self.name] += 1

    def close(self) -> dict[str, int]:
        """Finish the last file; return {file: rows}."""
        if self.file is not None:
            self.file.close()
        return self.counts

    def _open(self) -> None:
        self.close()
        self.name = f"{self.split}-{len(self.counts):06d}.tar"
        self.file = tarfile.open(self.folder / self.name, "w")  # noqa: SIM115 - closed by close
        self.bytes, self.counts[self.name] = 0, 0
