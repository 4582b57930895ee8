"""Child processes: each runs one function, answers over a connection and ends with its parent.

`multiprocessing` starts children with all that the parent has, and ends them by a thread that needs the interpreter's
lock. Decoders must get less (variables, output, `__main__`) and must end even while they hang in C code.
"""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import threading
from contextlib import contextmanager, suppress
from multiprocessing import current_process, spawn
from multiprocessing.connection import Connection
from multiprocessing.reduction import ForkingPickler
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

_PROGRAM = "import sys; from vmnet_pipeline.processes import run_child; run_child(int(sys.argv[1]))"


class ChildProcess:
    """One child process and the connection to it. Threads may share it; only `ask` and `receive` take turns.

    Attributes:
        connection: To the child. Its messages are pickles: read them only from a child that has read no foreign file.
    """

    def __init__(
        self, target: Callable[..., None], *arguments: Any, name: str, environment: Mapping[str, str] | None = None
    ) -> None:
        """Start it, without waiting for it.

        Args:
            target: Function of a module; called as `target(connection, *arguments)`.
            arguments: Picklable.
            name: Shown in the child's log.
            environment: Variables of a child that gets nothing else, neither `__main__` nor standard output; None: it
                gets all of that.

        Raises:
            OSError: No process can be started.
        """
        preparation = None
        if environment is None:  # what a child needs to import `__main__`, without the key for connections
            preparation = {key: value for key, value in spawn.get_preparation_data(name).items() if key != "authkey"}
        first = [ForkingPickler.dumps(message) for message in (preparation, (target, arguments))]
        ours, theirs = socket.socketpair()
        self.connection, self._lock = Connection(ours.detach()), threading.Lock()
        try:
            with theirs:
                self._process = _start_process(theirs.fileno(), environment)
        except OSError:
            self.connection.close()
            raise
        self.pid = self._process.pid
        with suppress(OSError):
            for content in first:
                self.connection.send_bytes(content)

    @property
    def is_alive(self) -> bool:
        """Whether it runs."""
        return self._process.poll() is None

    def ask(self, task: Any, timeout_s: float | None) -> Any:
        """Send a task and wait for the answer; errors as in `receive`."""
        self.send(task)
        return self.receive(timeout_s)

    def send(self, message: Any) -> None:
        """Send a message; `receive` reports a process that has ended."""
        with suppress(OSError):
            self.connection.send(message)

    def receive(self, timeout_s: float | None) -> Any:
        """Wait for a message.

        Raises:
            TimeoutError: None came.
            EOFError: The process has ended, or `end` was called.
        """
        try:
            if self.connection.poll(timeout_s):
                return self.connection.recv()
        except OSError as error:
            raise EOFError from error
        raise TimeoutError

    def kill(self) -> None:
        """Kill it and return at once; `end` still has to be called."""
        self._process.kill()

    def end(self, grace_s: float = 0.0) -> None:
        """Give it time to end, then kill it and wait until it has ended. May be called again."""
        with suppress(subprocess.TimeoutExpired):
            self._process.wait(grace_s)
        self._process.kill()
        self._process.wait()
        with self._lock:  # else two threads could close a reused descriptor
            self.connection.close()
            if self._process.stdin is not None:
                self._process.stdin.close()

    def describe_end(self) -> str:
        """How it ended: the name of a signal, or its exit code."""
        code = self._process.wait()
        with suppress(ValueError):
            return signal.Signals(-code).name
        return f"exit code {code}"


def _start_process(descriptor: int, environment: Mapping[str, str] | None) -> subprocess.Popen[bytes]:
    python_path = os.pathsep.join(place or os.getcwd() for place in sys.path)  # noqa: PTH109 - text is wanted
    with _block_interrupts():
        return subprocess.Popen(
            [sys.executable, "-P", "-c", _PROGRAM, str(descriptor)],
            stdin=subprocess.PIPE,  # nothing is ever written; see `_end_with_parent`
            stdout=None if environment is None else subprocess.DEVNULL,
            pass_fds=[descriptor],
            env={**(os.environ if environment is None else environment), "PYTHONPATH": python_path},
        )


@contextmanager
def _block_interrupts() -> Iterator[None]:
    """Start children that never see Ctrl-C: a terminal sends it to all, and the parent decides when they end.

    The mask is inherited, so it holds from the child's first moment; a handler would be set only after its imports.
    """
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def run_child(descriptor: int) -> None:
    """Run the function that the parent sends."""
    _end_with_parent()
    connection = Connection(descriptor)
    with suppress(EOFError, ConnectionResetError, BrokenPipeError):  # the parent has ended
        target, arguments = _receive_target(connection)
        target(connection, *arguments)


def _receive_target(connection: Connection) -> tuple[Callable[..., None], tuple[Any, ...]]:
    """Import the parent's `__main__` if it was sent, then the function, which may be defined there.

    `_inheriting` is how `multiprocessing` refuses to start children from a script that lacks
    `if __name__ == "__main__"`, which would otherwise start children of children without end.
    """
    preparation = connection.recv()
    if preparation is not None:
        process: Any = current_process()
        process._inheriting = True
        try:
            spawn.prepare(preparation)
        finally:
            del process._inheriting
    found: tuple[Callable[..., None], tuple[Any, ...]] = connection.recv()
    return found


def _end_with_parent() -> None:
    """Have the kernel end this process when its parent has ended in any way.

    Standard input is a pipe that only the parent holds open and never writes to. With `O_ASYNC` the kernel sends SIGIO
    when that end closes, and its default action ends the process, even one that hangs in a decoder. A thread that
    waits would need the interpreter's lock for that, and `PR_SET_PDEATHSIG` fires when the *thread* that started the
    child ends. On systems that do not signal pipes, the child ends when it next uses its connection.
    """
    import fcntl

    if hasattr(signal, "SIGIO"):
        signal.signal(signal.SIGIO, signal.SIG_DFL)
        fcntl.fcntl(0, fcntl.F_SETOWN, os.getpid())
        fcntl.fcntl(0, fcntl.F_SETFL, fcntl.fcntl(0, fcntl.F_GETFL) | os.O_ASYNC)
