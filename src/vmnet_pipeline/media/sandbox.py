"""Decode media in child processes, so that a file that crashes, hangs or swallows memory costs only itself.

A child decodes many files and ends with its parent. It may be taken over by a hostile file, so on Linux it gives up
the network, other files, programs and processes first (`confinement`), receives the file open (`handed`), and its
answers are parsed without pickle (`replies`).
"""

from __future__ import annotations

import logging
import os
import pickle
import threading
import time
import weakref
from contextlib import closing, suppress
from functools import cache
from multiprocessing.reduction import send_handle
from typing import TYPE_CHECKING, Any, TypeVar

from vmnet_pipeline.errors import MediaError, SandboxError
from vmnet_pipeline.media.confinement import select_environment
from vmnet_pipeline.media.replies import unpack_reply
from vmnet_pipeline.media.sandbox_child import MORE, Reply, serve
from vmnet_pipeline.media.tasks import OWN_PACKAGE, Task, hand_over, name_package, name_preload
from vmnet_pipeline.processes import ChildProcess

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Iterator

    from vmnet_pipeline.media.handed import Handed
    from vmnet_pipeline.params import LimitParams

_Result = TypeVar("_Result")

logger = logging.getLogger(__name__)

SANDBOX_REASONS = frozenset({"decoder_crashed", "timed_out", "out_of_memory"})
"""Reasons that depend on this machine and its limits; another one may read the file."""

START_WAIT_S = 120.0
END_WAIT_S = 10.0
MIN_SECONDS = 0.001
_MAX_REASON = 64
# Calls run side by side in children of their own, so each takes one core.
_ONE_THREAD = dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), "1")


class Sandbox:
    """Child processes for calls that read media files. Thread-safe: each call has a child of its own.

    Children are started on demand and kept for later calls, until `close` or the end of this object.

    Attributes:
        deadline: Time of `time.monotonic` at which calls end whatever their own limit, or None. It bounds several calls
            together, e.g. those for one upload.
    """

    def __init__(self, limits: LimitParams) -> None:
        self._limits, self._idle, self._owner = limits, list[_Child](), os.getpid()
        self._everyone: set[_Child] = set()
        self._warned = False
        self.deadline: float | None = None
        self._finalizer = weakref.finalize(self, _end_all, self._everyone, self._owner)

    def __enter__(self) -> Sandbox:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def start(self, n_children: int) -> None:
        """Start children in advance, up to this number; `call` starts those that are missing.

        Raises:
            SandboxError: They cannot be started.
        """
        self._forget_children_of_parent()
        new = [_Child(self._limits) for _ in range(n_children - len(self._idle))]
        self._everyone.update(new)
        for child in new:
            child.wait_until_ready()
            self._idle.append(child)

    def close(self) -> None:
        """End the children; calls in progress fail, later ones start new children."""
        _end_all(self._everyone, os.getpid())
        self._idle.clear()

    def call(self, function: Callable[..., _Result], path: str, **options: Any) -> _Result:
        """`function(path, **options)`, in a child.

        An earlier file may have damaged a child, so a crash or a lack of memory counts only when a fresh child confirms
        it. A function that cannot be sent to another process (e.g. of a notebook) is called here, with a warning.

        Args:
            function: Raises `MediaError` for a file that cannot be used; returns what `replies` can pack. One of this
                package opens the file with `container`, another one may also open a local file by its path.

        Raises:
            MediaError: From the function, or `decoder_crashed`, `timed_out`, `out_of_memory`; `internal_error` for an
                unexpected error.
            SandboxError: No child can be started.
        """
        try:
            task = Task(pickle.dumps((function, path, options)), path, name_package(function), name_preload(function))
        except (pickle.PicklingError, TypeError, AttributeError) as error:
            return self._call_here(function, path, options, str(error))
        child = self._take(task)
        may_be_worn = child.n_asked > 0
        reply = self._ask(child, task)
        if _may_go_better(reply, may_be_worn):
            reply = self._ask(self._spawn(), task)
        if reply.reason == "not_importable":
            return self._call_here(function, path, options, reply.message)
        _check_reply(reply, path)
        result: _Result = reply.value
        return result

    def stream(self, function: Callable[..., Iterator[_Result]], path: str, **options: Any) -> Iterator[_Result]:
        """The values of a generator function, one by one, so that no more than one of them is in memory.

        The limits hold for each value. Otherwise as `call`; after the first value nothing is tried again.
        """
        try:
            task = Task(pickle.dumps((function, path, options)), path, name_package(function), name_preload(function))
        except (pickle.PicklingError, TypeError, AttributeError) as error:
            yield from self._call_here(function, path, options, str(error))
            return
        child = self._take(task)
        may_be_worn = child.n_asked > 0
        replies = self._ask_all(child, task)
        reply = next(replies)
        if _may_go_better(reply, may_be_worn):
            replies = self._ask_all(self._spawn(), task)
            reply = next(replies)
        if reply.reason == "not_importable":
            yield from self._call_here(function, path, options, reply.message)
            return
        with closing(replies):
            while reply.reason == MORE:
                yield reply.value
                reply = next(replies)
        _check_reply(reply, path)

    def _call_here(self, function: Callable[..., _Result], path: str, options: dict[str, Any], why: str) -> _Result:
        if not self._warned:
            self._warned = True
            logger.warning(
                "Media files are read in this process, where a decoder that crashes ends the run (%s). Define what "
                "reads them in a module that can be imported.",
                why,
            )
        return function(path, **options)

    def _forget_children_of_parent(self) -> None:
        if self._owner != os.getpid():  # after a fork
            self._idle, self._owner = [], os.getpid()
            self._everyone.clear()

    def _take(self, task: Task) -> _Child:
        self._forget_children_of_parent()
        for child in reversed(self._idle):
            if child.made_for in (None, (task.reads_paths, task.preload)):
                with suppress(ValueError):  # another thread has taken it
                    self._idle.remove(child)
                    return child
        return self._spawn()

    def _spawn(self) -> _Child:
        child = _Child(self._limits)
        self._everyone.add(child)
        child.wait_until_ready()
        return child

    def _ask(self, child: _Child, task: Task) -> Reply:
        with closing(self._ask_all(child, task)) as replies:
            return next(replies)

    def _ask_all(self, child: _Child, task: Task) -> Generator[Reply]:
        """All replies; who asks for no further one ends the child."""
        reply = Reply(reason=MORE)
        try:
            with hand_over(task) as handed:
                reply = child.ask(task, handed, self._find_limits())
                while reply.reason == MORE:
                    yield reply
                    reply = child.receive(task, self._find_limits())
        except MediaError as error:  # it cannot be opened
            reply = Reply(reason=error.reason, message=str(error))
        finally:
            if reply.reason in (MORE, "worn_out", "out_of_memory"):
                child.end()
            if child.is_alive:
                self._idle.append(child)
            else:
                self._everyone.discard(child)
        yield reply

    def _find_limits(self) -> LimitParams:
        if self.deadline is None:
            return self._limits
        left = max(MIN_SECONDS, self.deadline - time.monotonic())
        seconds = left if self._limits.seconds is None else min(left, self._limits.seconds)
        return self._limits.model_copy(update={"seconds": seconds})


def _end_all(children: set[_Child], owner: int) -> None:
    if owner == os.getpid():
        while children:
            children.pop().end()


@cache
def _warn_of_rights(lacking: tuple[str, ...]) -> None:
    logger.warning("Processes that read media files keep unnecessary rights (%s)", "; ".join(lacking))


class _Child:
    """One process and the connection to it.

    Attributes:
        is_alive: Whether it takes another task.
        made_for: Whether it may open files by their names, and what it has imported, for all its life; None until its
            first task.
    """

    def __init__(self, limits: LimitParams) -> None:
        environment = {**select_environment(), **_ONE_THREAD}
        try:
            self._process = ChildProcess(serve, limits.seconds, limits.memory_mb, name="media", environment=environment)
        except OSError as error:
            raise _explain_start(str(error)) from error
        self.is_alive, self.n_asked = True, 0
        self.made_for: tuple[bool, str] | None = None

    def wait_until_ready(self) -> None:
        """Wait until the child has imported what it needs.

        Raises:
            SandboxError: It has ended, or does not get there.
        """
        try:
            self._process.receive(START_WAIT_S)
        except (EOFError, TimeoutError) as error:
            self.end()
            raise _explain_start(f"{self._process.describe_end()}; see its output above") from error

    def ask(self, task: Task, handed: Handed | None, limits: LimitParams) -> Reply:
        """Let the child do a task; its first reply, see `receive`."""
        self.n_asked += 1
        connection = self._process.connection
        try:
            if self.made_for is None:
                self._confine(task.reads_paths, task.preload)
            connection.send_bytes(task.content)
            connection.send(handed)
            if handed is not None:
                send_handle(connection, handed.descriptor, self._process.pid)
        except (EOFError, OSError):
            pass  # `receive` finds out why
        return self.receive(task, limits)

    def receive(self, task: Task, limits: LimitParams) -> Reply:
        """Wait for a reply; end the child when that takes too long."""
        try:
            if self._process.connection.poll(limits.seconds):
                return self._receive(task, limits)
            self.end()
            is_slow = True
        except (EOFError, OSError):
            self.end(END_WAIT_S)
            is_slow = self._process.describe_end() == "SIGXCPU"
        if is_slow and limits.seconds is not None:
            message = f"{{path}}: reading it took more than {limits.seconds:.4g} s; convert it, or raise limits.seconds"
            return Reply(reason="timed_out", message=message)
        end = self._process.describe_end()
        message = f"{{path}}: reading it made the decoder fail ({end}), twice; convert or remove it"
        return Reply(reason="decoder_crashed", message=message)

    def _confine(self, reads_paths: bool, preload: str) -> None:
        """Make the child import what cannot be imported later, and drop unnecessary rights before its first file."""
        self.made_for = (reads_paths, preload)
        lacking = self._process.ask((reads_paths, dict(os.environ) if reads_paths else {}, preload), START_WAIT_S)
        if lacking:
            _warn_of_rights(tuple(lacking))

    def _receive(self, task: Task, limits: LimitParams) -> Reply:
        """Read the answer of a process that a hostile file may control; EOFError if it is invalid."""
        watch = threading.Timer(limits.seconds or threading.TIMEOUT_MAX, self._process.kill)
        watch.daemon = True
        watch.start()
        try:
            content = self._process.connection.recv_bytes((limits.memory_mb or 1 << 20) << 20)
            reason, message, value = unpack_reply(content, {OWN_PACKAGE, task.package})
            return Reply(value, _check_reason(reason), "".join(c if c.isprintable() else " " for c in str(message)))
        except (OSError, ValueError, TypeError) as error:
            self._process.kill()
            raise EOFError from error
        finally:
            watch.cancel()

    def end(self, grace_s: float = 0.0) -> None:
        """End the process, after `grace_s` in which it may end by itself."""
        self.is_alive = False
        self._process.end(grace_s)


def _may_go_better(reply: Reply, may_be_worn: bool) -> bool:
    """Whether a fresh child has to confirm a failure."""
    return reply.reason == "decoder_crashed" or (may_be_worn and reply.reason in ("worn_out", "out_of_memory"))


def _check_reply(reply: Reply, path: str) -> None:
    """Raise the error that a reply stands for, if any."""
    if reply.reason == "internal_error":
        logger.error("Unexpected failure of %s:\n%s", path, reply.value)
    if reply.reason:
        raise MediaError(reply.reason, reply.message.replace("{path}", path))


def _check_reason(reason: object) -> str:
    """A reason goes into logs and metrics: a short word, or none.

    Raises:
        ValueError: It is something else.
    """
    word = str(reason)
    if word and not (word.isascii() and word.isidentifier() and len(word) <= _MAX_REASON):
        raise ValueError("a reason that is no word")
    return word


def _explain_start(why: str) -> SandboxError:
    return SandboxError(
        f"No process for reading media files can be started ({why}). Check the memory that is free, and the limits on "
        "processes (ulimit -u)."
    )
