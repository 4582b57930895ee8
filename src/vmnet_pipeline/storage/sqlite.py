"""SQLite on disks that cannot lock or flush files. MLflow and Optuna open databases through SQLAlchemy."""

from __future__ import annotations

import errno
import fcntl
import functools
import os
import sqlite3
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from vmnet_pipeline.storage.weak_disks import UNABLE, warn_once

if TYPE_CHECKING:
    from collections.abc import Callable

_NO_LOCKS = "Databases in %s are used without locks, as this disk has none: do not start two runs at once"
_NO_FLUSHING = "Databases in %s are not flushed to this disk, which cannot: a loss of power may damage them"


def allow_weak_disks() -> None:
    """Have SQLAlchemy open databases on such disks too, for the rest of the process."""
    from sqlalchemy import Engine, event

    if not event.contains(Engine, "do_connect", _connect):
        event.listen(Engine, "do_connect", _connect)


def _connect(dialect: Any, _record: Any, places: list[Any], options: dict[str, Any]) -> Any:
    """What SQLAlchemy calls before it connects; None leaves that to it."""
    name = str(places[0]) if dialect.name == "sqlite" and places else ""
    if not name or name.startswith((":memory:", "file:")) or all(_find_abilities(Path(name).parent)):
        return None
    return open_database(Path(name), connect=dialect.connect, **options)


def open_database(path: Path, mode: str = "rwc", connect: Callable[..., Any] = sqlite3.connect, **options: Any) -> Any:
    """Open a database as far as the disk allows.

    Args:
        path: The file.
        mode: `ro`, `rw` or `rwc`, as SQLite has them.
        connect: `sqlite3.connect` or what takes the same arguments.
        options: Those of `sqlite3.connect`.

    Returns:
        Its connection.

    Raises:
        sqlite3.Error: It cannot be opened.
    """
    can_lock, can_flush = _find_abilities(path.parent)
    end = "" if can_lock else "&nolock=1"
    connection = connect(f"file:{quote(str(path))}?mode={mode}{end}", **{**options, "uri": True})
    if not can_flush:
        connection.execute("pragma synchronous=off")
    return connection


@functools.cache
def _find_abilities(folder: Path) -> tuple[bool, bool]:
    """Whether files in a folder can be locked as SQLite does it, and flushed."""
    try:
        with tempfile.TemporaryFile(dir=folder) as file:
            can_lock = _can(lambda: fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB))
            can_flush = _can(lambda: os.fsync(file.fileno()))
    except OSError:  # not ours to write: opening the database tells more
        return True, True
    for is_able, warning in ((can_lock, _NO_LOCKS), (can_flush, _NO_FLUSHING)):
        if not is_able:
            warn_once(warning, folder)
    return can_lock, can_flush


def _can(call: Callable[[], object]) -> bool:
    try:
        call()
    except OSError as error:
        return error.errno not in (errno.ENOLCK, *UNABLE)
    return True
