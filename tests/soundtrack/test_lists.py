from __future__ import annotations

import csv

import pytest

from vmnet_pipeline.errors import ParameterError
from vmnet_pipeline.soundtrack.lists import write_list

ROWS = [
    {"rank": 1, "id": "a", "title": 'He said "hi", twice', "artist": "X", "path": "/m/a.mp3", "duration_s": 61.4},
    {"rank": 2, "id": "b", "title": "Two\nlines", "path": "#odd.mp3", "start_s": 12.5, "duration_s": None},
    {"rank": 3, "id": "c", "title": "no file"},
]


def test_a_table_has_every_column_and_is_read_back(tmp_path):
    write_list(tmp_path / "a.csv", ROWS)
    with (tmp_path / "a.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["title"] for row in rows] == [row["title"] for row in ROWS]
    assert rows[1]["start_s"] == "12.5" and rows[0]["start_s"] == rows[1]["duration_s"] == ""


@pytest.mark.parametrize("suffix", [".m3u", ".m3u8"])
def test_a_playlist_has_files_in_order_with_their_starts(tmp_path, suffix):
    write_list(tmp_path / f"a{suffix}", ROWS)
    assert (tmp_path / f"a{suffix}").read_text().splitlines() == [
        "#EXTM3U",
        '#EXTINF:61,X - He said "hi", twice',
        "/m/a.mp3",
        "#EXTINF:-1,Two lines",
        "#EXTVLCOPT:start-time=12.5",
        "./#odd.mp3",
    ]


def test_other_formats_are_refused(tmp_path):
    with pytest.raises(ParameterError, match=r"\.csv, \.m3u, \.m3u8"):
        write_list(tmp_path / "a.xlsx", ROWS)
