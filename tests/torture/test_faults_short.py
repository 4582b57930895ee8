"""Some kills and faults of the torture run, and that it tells of what it finds."""

from __future__ import annotations

import sys

import faults
import pytest
from fault_lab import Lab
from fault_outputs import compare_outputs, digest_outputs, find_half_files

pytestmark = [
    pytest.mark.process,
    pytest.mark.skipif(sys.platform != "linux", reason="processes are forked and struck as Linux lets them be"),
]


@pytest.fixture(scope="module")
def lab(tmp_path_factory):
    with Lab(tmp_path_factory.mktemp("faults")) as lab:
        yield lab


@pytest.fixture(scope="module")
def reference(lab):
    return faults.run_undisturbed(lab, ["ingest"])


def test_killed_runs_end_as_undisturbed_ones(lab, reference):
    rows = faults.kill_at_random_times(lab, reference, 1)
    rows += faults.kill_at_operations(lab, reference, 1) if lab.can_strike else []
    assert [row.failures for row in rows if row.failures] == []
    assert sum(row.tried for row in rows) >= 1


def test_a_disk_that_gets_full_is_one_clear_error_and_no_half_file(lab, reference):
    if not lab.can_strike:
        pytest.skip("there is no C compiler for the library that lets operations fail")
    project = lab.make_project("p", reference.before["ingest"])
    at = reference.operations["ingest"] - 2
    ending = lab.run(project, "ingest", fault=faults.Fault(at, faults.errno.ENOSPC, below="data"), tracks=False)
    assert faults.judge_failure(ending) == ("one clear error", [])
    assert "StorageError" in ending.output
    assert "No space left on device" in ending.output
    assert find_half_files(project) == []
    assert faults.resume(lab, project, "ingest", 0, reference) == []


def test_half_files_and_differences_are_found(tmp_path):
    data = tmp_path / "data"
    data.mkdir()
    (data / "a.json").write_text('{"a": 1, "seconds": 2}')
    (data / "a.csv").write_text("id\n007\n")
    expected = digest_outputs(tmp_path)
    assert find_half_files(tmp_path) == []
    (data / "a.json").write_text('{"a": 1, "seconds": 3}')
    assert compare_outputs(expected, digest_outputs(tmp_path)) == []
    (data / "a.csv").write_text("id\n008\n")
    (data / "b.csv").write_text("id")
    assert compare_outputs(expected, digest_outputs(tmp_path)) == ["a.csv differs", "b.csv is one too many"]
    (data / "a.json").write_text('{"a": 1')
    assert [text.split(":")[0] for text in find_half_files(tmp_path)] == [
        "a.json is a half file",
        "b.csv is a half file",
    ]


@pytest.mark.slow
def test_the_short_form(tmp_path):
    rows = faults.run(tmp_path, long=False, seeds=2)
    assert [failure for row in rows for failure in row.failures] == []
    assert sum(row.tried for row in rows) > 10
