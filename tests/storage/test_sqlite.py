"""Databases on disks that cannot lock or flush: SQLite itself is refused both, by the kernel."""

import subprocess
import sys
from pathlib import Path

import pytest
from weak_system import can_refuse

from vmnet_pipeline.storage.sqlite import allow_weak_disks, open_database

START = """
import logging, sys
logging.basicConfig(format="%(message)s")
sys.path.insert(0, {here!r})
from weak_system import WEAK, refuse
from vmnet_pipeline.storage.sqlite import allow_weak_disks, open_database
path = sys.argv[1]
refuse({{name: WEAK[name] for name in {calls!r}}})
"""
THROUGH_SQLALCHEMY = """
from sqlalchemy import create_engine, text
allow_weak_disks()
allow_weak_disks()
engine = create_engine("sqlite:///" + path, connect_args={"timeout": 1})
with engine.begin() as connection:
    connection.execute(text("create table t (x)"))
    connection.execute(text("insert into t values (7)"))
with create_engine("sqlite://").begin() as connection:
    connection.execute(text("create table t (x)"))
"""
DIRECTLY = """
import contextlib
from pathlib import Path
with contextlib.closing(open_database(Path(path), timeout=1, isolation_level=None)) as connection:
    connection.execute("create table t (x)")
    connection.execute("insert into t values (7)")
"""
LOCKS, FLUSHING = ["flock", "fcntl"], ["fsync", "fdatasync"]


@pytest.mark.process
@pytest.mark.skipif(not can_refuse(), reason="needs seccomp")
@pytest.mark.parametrize("way", [THROUGH_SQLALCHEMY, DIRECTLY], ids=["sqlalchemy", "direct"])
@pytest.mark.parametrize(("calls", "warnings"), [
    (LOCKS, ["used without locks"]), (FLUSHING, ["not flushed"]), (LOCKS + FLUSHING, ["used without", "not flushed"]),
], ids=["locks", "flushing", "both"])  # fmt: skip
def test_a_database_is_written_on_a_disk_that_can_little(tmp_path, way, calls, warnings):
    path = tmp_path / "a b#c.db"
    code = START.format(here=str(Path(__file__).parent), calls=calls) + way
    done = subprocess.run([sys.executable, "-c", code, path], capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
    assert [done.stderr.count(warning) for warning in warnings] == [1] * len(warnings)
    assert [entry.name for entry in tmp_path.iterdir()] == [path.name]
    connection = open_database(path, "ro")
    assert connection.execute("select x from t").fetchall() == [(7,)]
    connection.close()


def test_on_other_disks_nothing_changes(tmp_path, caplog):
    from sqlalchemy import create_engine, text

    allow_weak_disks()
    engine = create_engine(f"sqlite:///{tmp_path / 'a.db'}")
    with engine.begin() as connection:
        assert connection.execute(text("pragma synchronous")).scalar() == 2
        connection.execute(text("create table t (x)"))
    engine.dispose()
    first, second = (open_database(tmp_path / "a.db", "rw", timeout=0, isolation_level=None) for _ in range(2))
    first.execute("begin exclusive")
    with pytest.raises(Exception, match="locked"):
        second.execute("insert into t values (1)")
    first.close()
    second.close()
    assert caplog.text == ""
