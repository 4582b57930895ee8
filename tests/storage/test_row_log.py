import pyarrow.parquet as pq
import pytest

from vmnet_pipeline.errors import VmnetError
from vmnet_pipeline.storage.paths import (
    list_files,
)
from vmnet_pipeline.storage.row_log import RowLog

COLUMNS = {"id": "string", "n": "int64", "shape": "list<int64>"}


def read(folder, columns=COLUMNS):
    return RowLog(folder, columns).read().to_pylist()


def test_rows_of_several_writers_are_read_in_order_and_compacted(tmp_path):
    rows = [{"id": "a", "n": 1, "shape": [2, 3]}, {"id": "\n\u00fc\u2028", "n": 2, "shape": []}]
    for row in rows:
        RowLog(tmp_path, COLUMNS).append([row])
    assert read(tmp_path) == rows
    log = RowLog(tmp_path, COLUMNS)
    log.compact(log.read())
    assert [path.name for path in tmp_path.iterdir()] == ["rows.parquet"]
    assert log.is_compact()
    log.append([{"id": "c", "n": 3, "shape": [1]}])
    assert [row["id"] for row in read(tmp_path)] == ["a", "\n\u00fc\u2028", "c"]


def test_an_absent_folder_is_an_empty_table(tmp_path):
    assert read(tmp_path / "none") == []
    RowLog(tmp_path / "none", COLUMNS).append([])
    assert not (tmp_path / "none").exists()


@pytest.mark.parametrize("left", ['{"id": "x", "n', '{"id": "x", "n": 7}', "\x00\x00\x00"])
def test_what_a_killed_writer_left_of_a_line_is_not_read(tmp_path, left):
    RowLog(tmp_path, COLUMNS).append([{"id": "a", "n": 1}])
    (path,) = tmp_path.glob("rows-*.jsonl")
    path.write_text(path.read_text() + left)
    assert [row["id"] for row in read(tmp_path)] == ["a"]


def test_a_line_that_a_full_disk_cut_does_not_hide_later_ones(tmp_path):
    (tmp_path / "rows-1.jsonl").write_text(
        '{"id": "a", "n": 1}\n{"id": "b", "n{"id": "c", "n": 3}\n{"id": "d", "n": 4}\n'
    )
    assert [row["id"] for row in read(tmp_path)] == ["a", "d"]


def test_columns_may_come_and_go_between_versions(tmp_path):
    log = RowLog(tmp_path, COLUMNS)
    log.append([{"id": "a", "n": 1, "later": "x"}])
    assert read(tmp_path, {"id": "string", "new": "string"}) == [{"id": "a", "new": None}]
    log.compact(log.read())
    assert read(tmp_path, {"id": "string", "new": "string"}) == [{"id": "a", "new": None}]


def test_two_that_compact_at_once_do_not_stumble_over_each_other(tmp_path, monkeypatch):
    log = RowLog(tmp_path, COLUMNS)
    log.append([{"id": "a", "n": 1}])
    table = log.read()
    glob = type(tmp_path).glob

    def glob_before_the_other_removes(folder, pattern):
        found = list(glob(folder, pattern))
        for path in found:
            path.unlink()
        return iter(found)

    with monkeypatch.context() as patch:
        patch.setattr(type(tmp_path), "glob", glob_before_the_other_removes)
        log.compact(table)
    assert read(tmp_path) == [{"id": "a", "n": 1, "shape": None}]


def test_a_damaged_file_is_named(tmp_path):
    (tmp_path / "rows.parquet").write_bytes(b"PAR1 nothing")
    with pytest.raises(VmnetError, match=r"rows\.parquet is damaged"):
        read(tmp_path)


def test_a_damaged_line_is_left_out_and_the_others_are_read(tmp_path):
    RowLog(tmp_path, COLUMNS).append([{"id": f"{k}", "n": 1000 + k} for k in range(9)])
    (path,) = tmp_path.glob("rows-*.jsonl")
    path.write_text(path.read_text().replace("1004", "1005"))  # still JSON, and a row
    assert [row["n"] for row in read(tmp_path)] == [1000, 1001, 1002, 1003, 1005, 1006, 1007, 1008]
    assert "4" not in {row["id"] for row in read(tmp_path)}


def test_a_table_with_other_values_than_it_was_written_with_is_refused(tmp_path):
    log = RowLog(tmp_path, COLUMNS)
    log.append([{"id": "a", "n": 1, "shape": [2, 3]}])
    log.compact(log.read())
    stored = pq.read_table(tmp_path / "rows.parquet")
    changed = stored.set_column(1, "n", [[2]])
    pq.write_table(changed.replace_schema_metadata(stored.schema.metadata), tmp_path / "rows.parquet")
    with pytest.raises(VmnetError, match=r"rows\.parquet is damaged .*checksum"):
        read(tmp_path)


REMOTE_COLUMNS = {"id": "string", "n": "int64"}


def test_rows_of_several_writers_are_read_oldest_first_and_compacted(remote):
    first, second = RowLog(remote, REMOTE_COLUMNS, writer="a"), RowLog(remote, REMOTE_COLUMNS, writer="a-1")
    for n in range(3):
        first.append([{"id": "x", "n": n}])
    second.append([{"id": "y", "n": 7}])
    RowLog(remote, REMOTE_COLUMNS, writer="a").append([{"id": "z", "n": 9}])
    first.sync()
    assert len(list_files(remote)) == 3
    assert RowLog(remote, REMOTE_COLUMNS).read().to_pylist()[:3] == [{"id": "x", "n": n} for n in range(3)]
    assert [row["id"] for row in first.read_own().to_pylist()] == ["x", "x", "x", "z"]
    log = RowLog(remote, REMOTE_COLUMNS)
    log.compact(log.read())
    assert list(list_files(remote)) == ["rows.parquet"]
    assert len(log.read()) == 5
    assert log.is_compact()


def test_a_part_does_not_grow_for_ever(remote, monkeypatch):
    monkeypatch.setattr("vmnet_pipeline.storage.row_log._PART_ROWS", 2)
    log = RowLog(remote, REMOTE_COLUMNS)
    for n in range(5):
        log.append([{"id": "x", "n": n}])
    assert len(list_files(remote)) == 3
    assert sorted(log.read()["n"].to_pylist()) == list(range(5))
