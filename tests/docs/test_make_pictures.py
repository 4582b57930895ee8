"""Pictures of the page, the report and Kedro-Viz are there, small, shown, and of the page and report of now."""

import runpy

from doc_pages import DOCS, PAGES

PICTURES = runpy.run_path(str(DOCS / "make_pictures.py"))


def test_pictures_are_as_new_as_what_they_show():
    stale = " ".join(PICTURES["find_stale"]())
    assert not stale, (
        f"run `python docs/make_pictures.py {stale}` (page and report after `make demo`), or `make pictures`"
    )


def test_a_digest_changes_with_content_name_and_number_of_files(tmp_path, monkeypatch):
    monkeypatch.setitem(PICTURES["SOURCES"], "page", (tmp_path, "*"))
    digests = {PICTURES["digest_sources"]("page")}
    for name, text in (("page.css", "a{}"), ("page.css", "b{}"), ("more.js", "")):
        (tmp_path / name).write_text(text)
        digests.add(PICTURES["digest_sources"]("page"))
    (tmp_path / "more.js").rename(tmp_path / "other.js")
    assert len(digests | {PICTURES["digest_sources"]("page")}) == 5


def test_pictures_are_small_and_shown():
    shown = "".join(page.read_text("utf-8") for page in PAGES)
    paths = [DOCS / "images" / f"{name}.webp" for name in PICTURES["SOURCES"]]
    assert sum(path.stat().st_size for path in paths) < 400_000
    assert not [path.name for path in paths if f"images/{path.name})" not in shown]
