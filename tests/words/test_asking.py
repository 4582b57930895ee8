"""Clauses of a text, and which of them are exclusions."""

import pytest

from vmnet_pipeline.errors import ParameterError
from vmnet_pipeline.words.asking import MAX_CLAUSES, MAX_TEXT, read_clauses


def read(text):
    return [("-" if clause.is_excluded else "+") + " ".join(clause.content) for clause in read_clauses(text)]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("calm piano, no drums", ["+calm piano", "-drums"]),
        ("Rock WITHOUT Vocals", ["+rock", "-vocals"]),
        ("electronic -techno -house", ["+electronic", "-techno", "-house"]),
        ("-drums", ["-drums"]),
        ("electronic \u2212techno", ["+electronic", "-techno"]),  # a typographer's minus
        ("no drums and no vocals", ["-drums", "-vocals"]),
        ("no drums or vocals but a piano", ["-drums", "-vocals", "+piano"]),
        ("without drums, piano", ["-drums", "+piano"]),
        ("not without drums", ["+drums"]),
        ("nothing except rock", ["+rock"]),
        ("anything except rock", ["-rock"]),
        ("don't want electronic sounds", ["-electronic"]),
        ("I don\u2019t like techno", ["-techno"]),
        ("guitar w/o metal", ["+guitar", "-metal"]),
        ("non-vocal and free of drums", ["-vocal", "-drums"]),
        ("avant-garde", ["+avant-garde"]),
        ("free jazz", ["+free jazz"]),
        ("Musik ohne Gesang", ["+musik", "-gesang"]),
        ("sans paroles", ["-paroles"]),
        ("neither drums nor vocals", ["-drums", "-vocals"]),
        ("but darker", ["+darker"]),
        ("\u9759\u304b\u3001\u97f3\u697d", ["+\u9759\u304b", "+\u97f3\u697d"]),  # a Japanese comma
        ("\U0001f3b9 piano \U0001f3b8", ["+piano"]),
    ],
)  # fmt: skip
def test_clauses_are_wanted_or_excluded(text, expected):
    assert read(text) == expected


@pytest.mark.parametrize(
    "text", ["", "   ", ",;.!", "\U0001f3b9\U0001f3b8", "a the of", "no", "-", "without, no", "\0"]
)
def test_a_text_that_says_nothing_is_refused(text):
    with pytest.raises(ParameterError, match="says nothing to search for; write, for example"):
        read_clauses(text)


def test_long_texts_are_refused_at_once():
    assert len(read_clauses("piano, " * MAX_CLAUSES)) == MAX_CLAUSES
    with pytest.raises(ParameterError, match=f"has {MAX_CLAUSES + 1} parts; write at most {MAX_CLAUSES}"):
        read_clauses("piano, " * (MAX_CLAUSES + 1))
    assert read("x" * MAX_TEXT) == ["+" + "x" * MAX_TEXT]
    with pytest.raises(ParameterError, match=f"has 10000 characters; write at most {MAX_TEXT}"):
        read_clauses("y" * 10_000)
