"""Files that tell whether they are whole."""

import json

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from vmnet_pipeline.storage.checksummed import (
    add_checksum,
    check_files,
    check_table,
    describe_files,
    digest_table,
    parse_checksummed,
    read_frame,
    write_table,
)

CONTENT = {"ids": ["007", "ü"], "n": 2, "share": 0.1, "none": None}
COLUMNS = {
    "id": pa.array(["a", None, "ccc"]),
    "large": pa.array(["x", "y", None], pa.large_string()),
    "n": pa.array([1, None, 3]),
    "share": pa.array([0.5, None, -1.0]),
    "good": pa.array([True, None, False]),
    "shape": pa.array([[1, 2], None, []], pa.list_(pa.int64())),
}


@pytest.mark.parametrize("indent", [None, 2])
def test_json_comes_back_and_any_other_content_is_refused(indent):
    text = add_checksum(CONTENT, indent=indent)
    assert parse_checksummed(text) == CONTENT
    for old, new in (('"007"', '"006"'), ('"n": 2', '"n": 3'), ("0.1", "0.2"), ('"none"', '"nine"')):
        with pytest.raises(ValueError, match="does not match its checksum"):
            parse_checksummed(text.replace(old, new))


def test_json_of_an_older_version_has_no_checksum_and_is_taken():
    assert parse_checksummed(json.dumps(CONTENT)) == CONTENT
    with pytest.raises(ValueError, match="not a JSON object"):
        parse_checksummed("[1]")


def test_files_beside_are_named_when_they_differ(tmp_path):
    for name in ("a", "b"):
        (tmp_path / name).write_text(name)
    expected = describe_files(tmp_path, ("a", "b"))
    check_files(tmp_path, expected)
    (tmp_path / "b").write_text("c")
    with pytest.raises(ValueError, match="b does not match"):
        check_files(tmp_path, expected)


def test_a_table_comes_back_however_it_is_divided(tmp_path):
    table = pa.table(COLUMNS)
    write_table(table, tmp_path / "t.parquet")
    stored = pq.read_table(tmp_path / "t.parquet")
    check_table(stored)
    assert stored.to_pylist() == table.to_pylist()
    divided = pa.concat_tables([table.slice(0, 1), table.slice(1)])
    assert digest_table(divided) == digest_table(table) != digest_table(table.slice(1))
    write_table(table.slice(0, 0), tmp_path / "empty.parquet")
    check_table(pq.read_table(tmp_path / "empty.parquet"))


@pytest.mark.parametrize("name", COLUMNS)
def test_any_other_value_of_a_table_is_noticed(name):
    other = {
        "id": ["a", None, "ccd"], "large": ["xy", "", None], "n": [1, 0, 3], "share": [0.5, 0.0, -1.0],
        "good": [True, False, False], "shape": [[1], [2], []],
    }[name]  # fmt: skip
    table = pa.table(COLUMNS)
    place = table.column_names.index(name)
    changed = table.set_column(place, name, pa.array(other, table.schema.field(name).type))
    assert digest_table(changed) != digest_table(table)
    renamed = table.rename_columns([f"{column}x" if column == name else column for column in table.column_names])
    assert digest_table(renamed) != digest_table(table)


def test_a_frame_with_other_values_than_it_was_written_with_is_refused(tmp_path):
    path = tmp_path / "t.parquet"
    write_table(pa.table({"id": ["a", "b"]}), path)
    assert read_frame(path)["id"].tolist() == ["a", "b"]
    stored = pq.read_table(path)
    changed = pa.table({"id": ["a", "c"]}).replace_schema_metadata(stored.schema.metadata)
    pq.write_table(changed, path)
    with pytest.raises(ValueError, match="do not match its checksum"):
        read_frame(path)
