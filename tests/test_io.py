import numpy as np
import pyarrow as pa
import pytest

from conceptcaps.errors import InputError
from conceptcaps.io import (
    Sidecar,
    atomic,
    iter_batches,
    read_rows,
    read_table,
    write_ledger,
    write_table,
)

SCHEMA = pa.schema([("id", pa.string()), ("n", pa.int32())])
ROWS = [{"id": "a", "n": 1}, {"id": "b", "n": 2}]


def test_a_failing_writer_leaves_the_old_file_and_nothing_else(tmp_path):
    path = tmp_path / "x.txt"
    path.write_text("old")
    with pytest.raises(RuntimeError), atomic(path) as temporary:
        temporary.write_text("half")
        raise RuntimeError
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_a_directory_is_replaced_whole(tmp_path):
    for content in ("one", "two"):
        with atomic(tmp_path / "d") as temporary:
            temporary.mkdir()
            (temporary / content).touch()
    assert [p.name for p in (tmp_path / "d").iterdir()] == ["two"]


def test_table_has_exactly_the_schema(tmp_path):
    write_table(tmp_path / "t.parquet", ROWS, SCHEMA)
    assert read_table(tmp_path / "t.parquet").schema.equals(SCHEMA)
    with pytest.raises((pa.ArrowInvalid, ValueError)):
        write_table(tmp_path / "u.parquet", pa.table({"other": [1]}), SCHEMA)
    assert not (tmp_path / "u.parquet").exists()


def test_a_broken_table_is_named(tmp_path):
    (tmp_path / "t.parquet").write_bytes(b"PAR1 nonsense")
    with pytest.raises(InputError, match=r"t\.parquet: cannot be read as a parquet table"):
        read_rows(tmp_path / "t.parquet")


def test_a_damaged_page_is_found_wherever_it_is(tmp_path):
    """One flipped bit: either the file is named, or nothing that is read has changed."""
    rng = np.random.default_rng(0)
    rows = [{"id": rng.bytes(60).hex(), "n": int(rng.integers(1000))} for _ in range(300)]
    path = tmp_path / "t.parquet"
    write_table(path, rows, SCHEMA)
    whole, table = path.read_bytes(), read_table(path)
    footer = int.from_bytes(whole[-8:-4], "little") + 8
    found = 0
    for position in range(4, len(whole) - footer, len(whole) // 300):
        damaged = bytearray(whole)
        damaged[position] ^= 1 << int(rng.integers(8))
        path.write_bytes(damaged)
        for read in (read_table, lambda path: pa.Table.from_batches(iter_batches(path, 100))):
            try:
                assert read(path).equals(table)  # a bit of a page's header that means nothing
            except InputError as error:
                assert "t.parquet: cannot be read as a parquet table" in str(error)
                assert "delete it and run again" in str(error)
                found += 1
    assert found > 500  # of 2 x 300


def test_ledger_fails_below_the_yield_and_keeps_the_reasons(tmp_path):
    rows = [{"id": str(i), "status": "ok", "reason": ""} for i in range(9)]
    rows.append({"id": "9", "status": "silent", "reason": "-80 dBFS"})
    write_ledger(tmp_path / "ok.parquet", rows, min_yield=0.9)
    with pytest.raises(InputError, match=r"1 of 10 items were lost \(first: 9: silent, -80 dBFS\)"):
        write_ledger(tmp_path / "bad.parquet", rows, min_yield=0.95)
    assert read_rows(tmp_path / "bad.failed.parquet") == rows


def test_sidecar_survives_and_another_key_discards_it(tmp_path):
    output = tmp_path / "shard.parquet"
    first = Sidecar(output, key="settings 1", code=__file__, schema=SCHEMA)
    first.write(1, ROWS[1:])
    first.write(0, ROWS[:1])
    again = Sidecar(output, key="settings 1", code=__file__, schema=SCHEMA)
    assert 0 in again and 1 in again and 2 not in again
    assert again.rows() == ROWS
    assert 0 not in Sidecar(output, key="settings 2", code=__file__, schema=SCHEMA)
    Sidecar(output, key="settings 2", code=__file__, schema=SCHEMA).close()
    assert list(tmp_path.iterdir()) == []


def test_sidecar_makes_a_broken_batch_again(tmp_path):
    sidecar = Sidecar(tmp_path / "s.parquet", key="k", code=__file__, schema=SCHEMA)
    sidecar.write(0, ROWS)
    (tmp_path / "s.parquet.partial/00000.parquet").write_bytes(b"half")
    assert 0 not in sidecar


def test_sidecar_of_other_code_is_discarded(tmp_path):
    module = tmp_path / "module.py"
    module.write_text("x = 1\n")
    output = tmp_path / "s.parquet"
    Sidecar(output, key="k", code=module, schema=SCHEMA).write(0, ROWS)
    module.write_text("x = 1  # a remark\n")
    assert 0 in Sidecar(output, key="k", code=module, schema=SCHEMA)
    module.write_text("x = 2\n")
    assert 0 not in Sidecar(output, key="k", code=module, schema=SCHEMA)
