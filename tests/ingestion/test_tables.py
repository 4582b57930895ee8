"""Csv files as people have them: any usual separator and encoding, blank lines, quotes."""

import unicodedata

import pytest

from vmnet_pipeline.errors import IngestError
from vmnet_pipeline.ingestion.discovery import find_items
from vmnet_pipeline.ingestion.splits import find_user_split
from vmnet_pipeline.ingestion.tables import iterate_csv_rows, read_csv_rows, read_ids
from vmnet_pipeline.search.item_metadata import read_extra_columns

ROWS = [{"id": "007", "video": "clips/é.mp4", "group": ""}, {"id": "a, b", "video": "2.mp4", "group": "g"}]


def write(path, separator=",", encoding="utf-8", line_end="\n", before="", header="id,video,group"):
    lines = [
        header.replace(",", separator),
        f"007{separator}clips/é.mp4{separator}",
        f'"a, b"{separator}2.mp4{separator}g',
    ]
    path.write_bytes((before + line_end.join(lines) + line_end).encode(encoding))
    return path


@pytest.mark.parametrize("separator", [",", ";", "\t", "|"])
@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-16-le", "utf-16-be", "utf-32", "cp1252"])
@pytest.mark.parametrize("line_end", ["\n", "\r\n", "\r"])
def test_separator_encoding_and_line_end_are_recognised(tmp_path, separator, encoding, line_end):
    path = write(tmp_path / "t.csv", separator, encoding, line_end)
    assert read_csv_rows(path, ("id", "video")) == ROWS
    assert list(iterate_csv_rows(path, ("id",))) == ROWS


def test_utf16_with_the_mark_of_the_other_order(tmp_path):
    path = tmp_path / "t.csv"
    path.write_bytes(b"\xfe\xff" + 'id,video,group\n007,clips/é.mp4,\n"a, b",2.mp4,g'.encode("utf-16-be"))
    assert read_csv_rows(path, ("id", "video")) == ROWS


@pytest.mark.parametrize("before", ["\n", "\r\n\r\n", ",,,\n", ";;\n", "  \n\t\n", "sep=;\n", "\nSEP=;\r\n"])
def test_lines_before_the_header_are_left_out(tmp_path, before):
    separator = ";" if ";" in before else ","
    assert read_csv_rows(write(tmp_path / "t.csv", separator, before=before), ("id", "video")) == ROWS


def test_names_of_known_columns_in_any_case_and_empty_rows(tmp_path):
    path = write(tmp_path / "t.csv", header=" ID ,Video,GROUP")
    with path.open("a", encoding="utf-8") as file:
        file.write("\n,,\n  , ,\n")
    assert read_csv_rows(path, ("id", "video")) == ROWS


def test_what_was_recognised_is_said_and_the_usual_is_not(tmp_path, caplog):
    caplog.set_level("INFO")
    read_csv_rows(write(tmp_path / "usual.csv", encoding="utf-8-sig"), ("id",))
    assert caplog.text == ""
    read_csv_rows(write(tmp_path / "odd.csv", ";", "cp1252", before="\n"), ("id",))
    assert (
        "odd.csv is read as cp1252 text, separated by semicolon, from line 2 on; if letters come out wrong"
        in caplog.text
    )


def test_a_separator_that_the_header_does_not_have_is_not_taken_for_one(tmp_path):
    path = tmp_path / "t.csv"
    path.write_text("id\na;b\nc,d\n")
    assert read_ids(path) == ("a;b", "c")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "has no column id; its columns are none"),
        (b"\n\n;;\n", "has no column id"),
        (b"name;title\na;b\n", "has no column id; its columns are name, title"),
        (b"id,video,Video\na,1.mp4,2.mp4\n", "has more than one column video"),
        (b"\x7fELF\2\1\1\0\0\0id,video\n", "it is not text"),
        (b"\xff\xfei\0d\0\0\xd8\n\0a\0", "cannot be read as a csv file"),
    ],
)
def test_what_is_no_table_is_refused_in_words(tmp_path, content, message):
    (tmp_path / "t.csv").write_bytes(content)
    with pytest.raises(IngestError, match=message):
        read_csv_rows(tmp_path / "t.csv", ("id",))


def test_cells_have_one_spelling_but_for_paths(tmp_path):
    composed, decomposed = (unicodedata.normalize(form, "Zoé") for form in ("NFC", "NFD"))
    (tmp_path / "t.csv").write_text(f"id,video,group,title\n{','.join([decomposed] * 4)}\n", encoding="utf-8")
    (row,) = read_csv_rows(tmp_path / "t.csv", ("id",))
    assert row == {"id": composed, "video": decomposed, "group": composed, "title": composed}


def test_cells_beyond_the_header_are_told(tmp_path, caplog):
    (tmp_path / "t.csv").write_text("id,video\na,1.mp4,,\n")  # as spreadsheets write it
    assert read_csv_rows(tmp_path / "t.csv", ("id",)) == [{"id": "a", "video": "1.mp4"}]
    assert caplog.text == ""
    (tmp_path / "t.csv").write_text("id,video\na,1.mp4\nb,Hello, you.mp4\n")
    read_csv_rows(tmp_path / "t.csv", ("id",))
    assert "1 rows have more cells than the header; the extra ones are left out, e.g. in line 3" in caplog.text


def test_every_csv_that_a_user_hands_in_is_read_so(tmp_path):
    (tmp_path / "clips").mkdir()
    write(tmp_path / "media.csv", ";", "utf-16")
    assert [item.id for item in find_items(tmp_path)] == ["007", "a, b"]
    assert read_extra_columns(tmp_path)["id"].tolist() == ["007", "a, b"]
    for name in ("train", "test"):
        (tmp_path / f"{name}.csv").write_bytes(f"\r\nid;note\r\n{name}\xe9;x\r\n".encode("cp1252"))
    split = find_user_split(tmp_path, tmp_path)
    assert (split.train, split.test) == (("trainé",), ("testé",))
