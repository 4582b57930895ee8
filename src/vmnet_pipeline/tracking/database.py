"""Create, check and relocate the SQLite database of MLflow.

MLflow creates it table by table, and no run can use one that a kill left unfinished: here it is created completely or
not at all. It stores absolute paths of artifacts, which break when the project is moved or copied; here they become
relative to it.
"""

from __future__ import annotations

import contextlib
import logging
import sqlite3
from pathlib import Path

from vmnet_pipeline.errors import StorageError
from vmnet_pipeline.storage.atomic import name_temporary
from vmnet_pipeline.storage.sqlite import open_database
from vmnet_pipeline.storage.weak_disks import warn_once

logger = logging.getLogger(__name__)

SCHEME = "sqlite:///"
ARTIFACTS = "mlruns"
BUSY_S = 5.0
"""Seconds that another process may hold the database."""

_MAX_CHECKED_BYTES = 256 << 20
_PLACES = (
    ("runs", "artifact_uri"),
    ("logged_models", "artifact_location"),
    ("model_versions", "source"),
    ("model_versions", "storage_location"),
)
_NO_LINKS = "No hard links here (%s): if two first runs of a project start at the same moment, one is lost"


def find_database(uri: str) -> Path | None:
    """Return the file of a `sqlite:///FILE`; None for a server or another database."""
    path = Path(uri.removeprefix(SCHEME))
    return path if uri.startswith(SCHEME) and path.name not in ("", ":memory:") else None


def make_database(uri: str) -> None:
    """Create the database of a `sqlite:///FILE` unless one exists; of concurrent processes one wins, and all use its.

    Raises:
        OSError: The folder cannot be written.
    """
    path = find_database(uri)
    if path is None or path.exists():
        return
    import mlflow

    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = name_temporary(path)
    try:
        mlflow.MlflowClient(tracking_uri=f"{SCHEME}{temporary}").search_experiments(max_results=1)
        try:
            path.hardlink_to(temporary)  # not a rename: a link never replaces the database of another process
        except OSError as error:
            if not path.exists():  # not every disk has links
                warn_once(_NO_LINKS, error.strerror)
                temporary.rename(path)
    finally:
        for end in ("", "-journal", "-wal", "-shm"):
            Path(f"{temporary}{end}").unlink(missing_ok=True)


def check_database(path: Path) -> None:
    """Check in seconds what MLflow would retry for minutes.

    Raises:
        StorageError: It is not a database, damaged, locked, or not writable.
    """
    if path.is_dir():
        raise StorageError(f"{path} is a folder, not a database")
    if path.stat().st_size == 0:
        return  # MLflow makes its tables in an empty one
    try:
        with contextlib.closing(_open(path)) as connection:
            connection.execute("begin immediate")
            connection.execute("create table vmnet_writable (x)")
            is_small = path.stat().st_size <= _MAX_CHECKED_BYTES
            found = connection.execute("pragma quick_check(1)").fetchone()[0] if is_small else "ok"
            connection.execute("rollback")
    except sqlite3.Error as error:
        raise StorageError(f"{path}: {error}") from error
    except UnicodeDecodeError as error:  # the text of a table, or of the error itself
        raise StorageError(f"{path} is damaged") from error
    if found != "ok":
        raise StorageError(f"{path} is damaged: {' '.join(str(found).split())[:120]}")


def _open(path: Path) -> sqlite3.Connection:
    connection: sqlite3.Connection = open_database(path, "rw", timeout=BUSY_S, isolation_level=None)
    return connection


def relate_artifacts(path: Path, project: Path) -> None:
    """Make artifact paths relative to the project, which is the current folder of every command; it can then be moved.

    Only paths below the `mlruns` that MLflow creates next to its database are changed, here or in the folder that a
    project was moved or copied from, not the user's own. A run whose artifacts were left behind keeps their path.

    Raises:
        StorageError: The database cannot be read or written.
    """
    if not path.is_relative_to(project):
        return  # shared by several projects
    try:
        with contextlib.closing(_open(path)) as connection, connection:
            for number, place in _find_absolute(connection, path, project):
                old = place.removesuffix(f"/{number}")
                _relate(connection, number, old, project)
                if Path(old) != project / ARTIFACTS:
                    logger.info("MLflow: artifacts of experiment %s are now kept here, not in %s", number, old)
    except (sqlite3.Error, UnicodeDecodeError) as error:
        raise StorageError(f"{path}: {error}") from error


def _find_absolute(connection: sqlite3.Connection, path: Path, project: Path) -> list[tuple[str, str]]:
    """Experiments whose artifact paths name the folder of the project, or its former one."""
    tables = {name for (name,) in connection.execute("select name from sqlite_master where type = 'table'")}
    if "experiments" not in tables:
        return []
    found = []
    for number, place in connection.execute("select experiment_id, artifact_location from experiments").fetchall():
        text = str(place).removeprefix("file://")
        old = Path(text.removesuffix(f"/{ARTIFACTS}/{number}"))
        if text != str(place) or not text.endswith(f"/{ARTIFACTS}/{number}"):
            continue
        has_stayed = Path(text).parent.exists() and not (old / path.relative_to(project)).exists()
        if old == project or not has_stayed or (project / ARTIFACTS / str(number)).exists():
            found.append((str(number), text))
    return found


def _relate(connection: sqlite3.Connection, number: str, old: str, project: Path) -> None:
    connection.execute(
        "update experiments set artifact_location = ? where experiment_id = ?", (f"{ARTIFACTS}/{number}", int(number))
    )
    tables = {name for (name,) in connection.execute("select name from sqlite_master where type = 'table'")}
    for table, column in (entry for entry in _PLACES if entry[0] in tables):
        columns = {row[1] for row in connection.execute(f"pragma table_info({table})")}
        if column not in columns:
            continue
        rows = connection.execute(
            f"select rowid, {column} from {table} where substr({column}, 1, ?) = ?",  # noqa: S608
            (len(f"{old}/{number}/"), f"{old}/{number}/"),
        ).fetchall()
        for row, place in rows:
            target = ARTIFACTS + place.removeprefix(old)
            if (project / target).exists() or not Path(place).exists():
                connection.execute(f"update {table} set {column} = ? where rowid = ?", (target, row))  # noqa: S608
