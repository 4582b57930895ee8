"""A small corpus of hostile media through ingestion; and that the torture run tells of what it finds."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from media_corpus import make_corpus, make_names
from row import Row

import media
from vmnet_pipeline.params import IngestParams
from vmnet_pipeline.pipelines.ingest.nodes import ingest_media

HERE = Path(__file__).parent
LIMITS = {"seconds": 20.0, "memory_mb": 2048}


@pytest.mark.long
def test_every_hostile_file_ends_as_usable_or_with_a_reason(tmp_path):
    corpus = make_corpus(tmp_path / "media", n_each=4, seed=5, is_small=True)
    manifest, _ = ingest_media(IngestParams(media_dir=str(corpus.folder), limits=LIMITS), tmp_path / "cache")
    assert list(manifest["id"]) == [item_id for item_id, *_ in corpus.rows]
    bad = manifest[manifest["status"] != "ok"]
    assert (bad["reason"] != "").all()
    assert (bad["error"] != "").all()
    assert "internal_error" not in set(bad["reason"])
    assert {"unknown_format", "empty_file", "missing_file", "not_a_file", "frame_too_large"} <= set(bad["reason"])
    untouched = [item_id for item_id, kind, *_ in corpus.rows if kind == "untouched"]
    assert (manifest.set_index("id").loc[untouched, "status"] == "ok").all()


def test_every_name_is_found_once(tmp_path):
    names = make_names(tmp_path / "media", b"no film")
    try:
        with pytest.raises(Exception, match="None of the"):
            ingest_media(IngestParams(media_dir=str(tmp_path / "media"), limits=LIMITS), tmp_path / "cache")
    finally:
        media.open_folders(tmp_path)
    assert len(names) > 30


def test_the_same_seed_gives_the_same_files(tmp_path):
    first, second = (make_corpus(tmp_path / name, n_each=2, seed=7, is_small=True) for name in ("a", "b"))
    assert first.rows == second.rows
    for path in sorted((first.folder / "files").glob("0*")):
        assert path.read_bytes() == (second.folder / "files" / path.name).read_bytes()


EXPECTED = {("listed", "i0"): "truncated", ("listed", "i1"): "truncated", ("named", "/a"): "name in a folder"}
GOOD = [["listed", "i0", "x", "features"], ["listed", "i1", "x", "empty_file"], ["named", "a", "/a", "features"]]


def failures_of(outcomes, trouble=""):
    return [text for row in media.merge(media.judge(EXPECTED, outcomes, trouble)) for text in row.failures]


def test_what_becomes_of_items_is_counted():
    rows = media.merge(media.judge(EXPECTED, GOOD, ""))
    assert Row("truncated", 2, {"features": 1, "empty_file": 1}) in rows
    assert failures_of(GOOD) == []


@pytest.mark.parametrize(
    "outcomes",
    [
        GOOD[:2],
        [*GOOD, GOOD[0]],
        [*GOOD, ["listed", "i9", "x", "features"]],
        [["listed", "i0", "x", "internal_error"], *GOOD[1:]],
        [["listed", "i0", "x", "no reason"], *GOOD[1:]],
    ],
)
def test_what_must_not_be_is_a_failure(outcomes):
    assert len(failures_of(outcomes)) == 1


def test_a_crash_of_the_run_is_a_failure():
    assert failures_of([], "the run crashed with code -11") == ["the run crashed with code -11"]


PART = "from row import Row\ndef run(folder, *, long, seeds):\n    return [Row('it', 2, {'well': 1}, {failures})]\n"


@pytest.mark.process
@pytest.mark.parametrize(("failures", "code"), [("[]", 0), ("['badly']", 1), ("1 / 0", 1)])
def test_the_exit_code_tells_of_failures(tmp_path, failures, code):
    for name in ("run.py", "row.py"):
        (tmp_path / name).write_text((HERE / name).read_text())
    (tmp_path / "media.py").write_text(PART.replace("{failures}", failures))
    report = tmp_path / "report.json"
    command = [sys.executable, str(tmp_path / "run.py"), "--only", "media", "--report", str(report)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode == code, done.stderr
    assert ("FAILED media" in done.stdout) is bool(code)
    assert "| media | " in report.with_suffix(".md").read_text()
