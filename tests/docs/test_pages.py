"""The pages are whole: those made from the code are up to date, tests and links that they name are there."""

from __future__ import annotations

import ast
import re
import runpy
import sys
from functools import cache
from pathlib import Path

import pytest
import yaml
from doc_pages import DOCS, PAGES, ROOT, name_page, without_blocks

SITE = runpy.run_path(str(DOCS / "build_site.py"))


@pytest.mark.parametrize("name", SITE["GENERATED"])
def test_what_is_made_from_the_code_is_up_to_date(name, monkeypatch):
    monkeypatch.setattr(sys, "path", [*sys.path])
    assert not SITE["find_stale"]([name]), "run `make docs`"


def test_parameters_of_every_depth_are_told():
    assert "| `train.loss.margin` |" in (DOCS / "parameters.md").read_text(encoding="utf-8")


@cache
def list_tests(file: str) -> set[str]:
    tree = ast.parse((ROOT / file).read_text(encoding="utf-8"))
    return {node.name for node in ast.walk(tree) if isinstance(node, ast.FunctionDef)}


def test_every_test_that_the_fidelity_table_names_exists():
    named = re.findall(r"`(tests/[\w/]+\.py)::(\w+)`", (DOCS / "fidelity.md").read_text(encoding="utf-8"))
    assert len(named) > 40
    assert not [f"{file}::{name}" for file, name in named if name not in list_tests(file)]


def test_every_row_of_the_fidelity_table_names_a_test():
    rows = [line for line in (DOCS / "fidelity.md").read_text(encoding="utf-8").splitlines() if line.startswith("| ")]
    heads = [row for row in rows if row.endswith("| held by |")]
    assert [row for row in rows if "`tests/" not in row] == heads


def test_every_benchmark_is_told_with_its_command():
    text = (DOCS / "benchmarks.md").read_text(encoding="utf-8")
    programs = [path.name for path in (ROOT / "benchmarks").glob("*.py") if "__main__" in path.read_text("utf-8")]
    assert len(programs) > 8
    assert not [name for name in programs if f"`python benchmarks/{name}`" not in text]


def make_anchor(heading: str) -> str:
    plain = re.sub(r"[^\w\s-]", "", heading.replace("`", "").lower()).strip()
    return re.sub(r"[\s]+", "-", plain)


def find_anchors(page: Path) -> set[str]:
    return {make_anchor(line.lstrip("# ")) for line in without_blocks(page).splitlines() if line.startswith("#")}


@pytest.mark.parametrize("page", PAGES, ids=name_page)
def test_links_lead_somewhere(page):
    for link in re.findall(r"\]\(([^)\s]+)\)", without_blocks(page)):
        if link.startswith(("https://", "http://", "mailto:")):
            assert re.fullmatch(r"https?://[\w.-]+(:\d+)?(/[\w./~%@:?=&#+-]*)?", link), link
            continue
        file, _, anchor = link.partition("#")
        target = (page.parent / file).resolve() if file else page
        assert target.exists(), link
        assert not anchor or anchor in find_anchors(target), link


@pytest.mark.online
@pytest.mark.parametrize("page", PAGES, ids=name_page)
def test_links_to_elsewhere_answer(page):
    import requests

    for link in sorted(set(re.findall(r"\]\((https://[^)\s]+)\)", without_blocks(page)))):
        answer = requests.get(link, timeout=30, headers={"User-Agent": "Mozilla/5.0"}, stream=True)
        assert answer.status_code not in (404, 410), link


def test_every_page_has_its_place_in_the_navigation():
    text = (ROOT / "mkdocs.yml").read_text(encoding="utf-8")
    named = set(re.findall(r": ([\w./-]+\.md)$", text, re.MULTILINE))
    assert yaml.safe_load(text)["nav"]
    there = {page.relative_to(DOCS).as_posix() for page in PAGES if DOCS in page.parents}
    assert {name for name in there if not name.startswith("decisions/0")} == named - {"changelog.md"}


def test_the_site_is_built_strictly_and_loads_nothing_from_elsewhere(tmp_path, monkeypatch):
    from mkdocs.commands.build import build
    from mkdocs.config import load_config

    monkeypatch.setenv("NO_MKDOCS_2_WARNING", "1")
    build(load_config(str(ROOT / "mkdocs.yml"), site_dir=str(tmp_path / "site"), strict=True))
    pages = {path.name: path.read_text(encoding="utf-8") for path in (tmp_path / "site").glob("*.html")}
    assert len(pages) > 25
    for name, text in pages.items():
        loaded = re.findall(r"<(?:script|img|iframe|source)\b[^>]*\bsrc=\"?(https?:[^\"> ]*)", text)
        loaded += re.findall(r"<link\b[^>]*rel=\"?(?:stylesheet|preconnect|icon)[^>]*href=\"?(https?:[^\"> ]*)", text)
        assert not loaded, name
    assert pages["method.html"].count("<math") > 25
    assert "```math" not in pages["method.html"]
