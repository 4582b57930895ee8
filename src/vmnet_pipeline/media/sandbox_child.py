"""Read media files in a child process: limit each call, answer without pickles, and end when memory has grown."""

from __future__ import annotations

import gc
import os
import pickle
import sys
import traceback
from collections.abc import Generator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from importlib import import_module
from multiprocessing.reduction import recv_handle
from typing import TYPE_CHECKING, Any

from vmnet_pipeline.errors import MediaError
from vmnet_pipeline.media.confinement import confine
from vmnet_pipeline.media.handed import use_handed
from vmnet_pipeline.media.replies import pack_reply

if TYPE_CHECKING:
    from collections.abc import Iterator
    from multiprocessing.connection import Connection

MORE = "more"
"""Reason of the reply with one value of several."""

_MEBIBYTE = 1 << 20
# Memory that a child may retain from earlier files; one that retains more is replaced.
_MOST_KEPT_MB = 256
_MOST_KEPT_SHARE = 8


@dataclass(frozen=True, slots=True)
class Reply:
    """Result of a call: a value or the reason for failure."""

    value: Any = None
    reason: str = ""
    message: str = ""


def serve(connection: Connection, seconds: float | None, memory_mb: int | None) -> None:
    """Answer tasks until the connection closes."""
    import av  # noqa: F401 - not at the expense of a file
    import numpy as np  # noqa: F401

    connection.send("ready")
    kept_mb = min(_MOST_KEPT_MB, (memory_mb or _MOST_KEPT_MB * _MOST_KEPT_SHARE) // _MOST_KEPT_SHARE)
    imported_bytes = 0
    with suppress(EOFError, ConnectionResetError, BrokenPipeError):
        reads_paths, variables, preload = connection.recv()
        os.environ.update(variables)
        if preload:
            with suppress(ImportError):  # the call itself reports it
                import_module(preload)
        most_bytes = _measure_memory()[1] + kept_mb * _MEBIBYTE
        connection.send(confine(reads_paths=reads_paths))
        while not _has_grown(most_bytes + imported_bytes):
            with _receive_task(connection) as task:
                imported_bytes += _import_libraries(task)
                _limit_next_call(seconds, memory_mb, imported_bytes)
                for answer in _answer(task, memory_mb):
                    connection.send_bytes(answer)
                    _limit_next_call(seconds, memory_mb, imported_bytes)
        with _receive_task(connection):
            connection.send_bytes(pack_reply(("worn_out", "", None)))


@contextmanager
def _receive_task(connection: Connection) -> Iterator[bytes]:
    task, handed = connection.recv_bytes(), connection.recv()
    if handed is not None:
        handed = replace(handed, descriptor=recv_handle(connection))
    with use_handed(handed):
        yield task


def _import_libraries(task: bytes) -> int:
    """Import what the function's object says it needs, not at the expense of a file; the bytes that this takes."""
    before = _measure_memory()[1]
    _lift_memory_limit()
    with suppress(ImportError, AttributeError):  # the call itself reports it
        owner = getattr(pickle.loads(task)[0], "__self__", None)  # noqa: S301 - from our own parent
        getattr(owner, "import_libraries", lambda: None)()
    return max(0, _measure_memory()[1] - before)


def _lift_memory_limit() -> None:
    """Take back the limit of the call before."""
    import resource

    _set_limit(resource.RLIMIT_AS, resource.getrlimit(resource.RLIMIT_AS)[1])


def _limit_next_call(seconds: float | None, memory_mb: int | None, imported_bytes: int = 0) -> None:
    """Allow this much time beyond that used so far, and this much memory in total without libraries."""
    import resource

    _set_limit(resource.RLIMIT_CORE, 0)
    if seconds is not None:
        used_s = sum(resource.getrusage(resource.RUSAGE_SELF)[:2])
        _set_limit(resource.RLIMIT_CPU, int(used_s + seconds) + 1)
    limit_memory(memory_mb, imported_bytes)


def limit_memory(memory_mb: int | None, imported_bytes: int = 0) -> None:
    """Allow this process as much memory in total, without libraries; None: no limit."""
    import resource

    if memory_mb is not None and sys.platform == "linux":
        mapped, data = _measure_memory()
        _set_limit(resource.RLIMIT_AS, mapped - data + imported_bytes + memory_mb * _MEBIBYTE)


def _set_limit(kind: int, value: int) -> None:
    """Set one soft limit, which a lower hard limit of the system overrides."""
    import resource

    hard = resource.getrlimit(kind)[1]
    with suppress(ValueError, OSError):
        resource.setrlimit(kind, (value, hard))


def _measure_memory() -> tuple[int, int]:
    """Bytes of address space in use, and those of them that are data; 0 on systems without /proc."""
    try:
        with open("/proc/self/statm", "rb") as file:  # noqa: PTH123 - for every media file: a Path object takes longer
            pages = [int(word) for word in file.read().split()]
    except OSError:
        return 0, 0
    page_bytes = os.sysconf("SC_PAGE_SIZE")
    return pages[0] * page_bytes, pages[5] * page_bytes


def _has_grown(most_bytes: int) -> bool:
    """Whether the process uses more memory, after a garbage collection."""
    if _measure_memory()[1] <= most_bytes:
        return False
    gc.collect()
    return _measure_memory()[1] > most_bytes


def _answer(task: bytes, memory_mb: int | None) -> Iterator[bytes]:
    """One message, or of a function that yields one for each value and one at the end."""
    try:
        for reply in _call(task):
            yield pack_reply((reply.reason, reply.message, reply.value))
    except TypeError as error:
        yield pack_reply(("internal_error", str(error), traceback.format_exc()))
    except MemoryError:
        message = f"{{path}}: reading it takes more than {memory_mb} MB; convert it, or raise limits.memory_mb"
        yield pack_reply(("out_of_memory", message, None))


def _call(task: bytes) -> Iterator[Reply]:
    try:
        function, path, options = pickle.loads(task)  # noqa: S301 - from our own parent
    except (ImportError, AttributeError) as error:
        yield Reply(reason="not_importable", message=str(error))
        return
    try:
        value = function(path, **options)
        if isinstance(value, Generator):
            for part in value:
                yield Reply(part, MORE)
            value = None
        yield Reply(value)
    except MediaError as error:
        yield Reply(reason=error.reason, message=str(error))
    except MemoryError:
        raise
    except Exception as error:
        yield Reply(traceback.format_exc(), "internal_error", f"{type(error).__name__}: {error}")
