"""Explain limits of the shell and the system (`ulimit`), before or after they are reached.

Nothing heavy is imported here: with little memory or few processes it is the imports that fail.
"""

from __future__ import annotations

import contextlib
import errno
import os
import signal
import sys
import threading
from typing import TYPE_CHECKING

from vmnet_pipeline.errors import LimitError

if TYPE_CHECKING:
    from types import FrameType, TracebackType

_KEPT = "Everything finished so far is kept."
_REMEDIES = {
    "memory": f"Not enough memory, or the shell allows too little (ulimit -v). {_KEPT}",
    "threads": f"No more threads or processes can be started. Raise the limit (ulimit -u), or end others. {_KEPT}",
    "files": f"Too many files are open. Raise the limit (ulimit -n). {_KEPT}",
    "temporary": "No usable folder for temporary files. Free some space in /tmp, or set TMPDIR. " + _KEPT,
}
_SIGNS = {
    os.strerror(errno.ENOMEM): "memory",
    "can't allocate memory": "memory",
    "failed to map segment": "memory",
    "std::bad_alloc": "memory",
    "can't start new thread": "threads",
    os.strerror(errno.EMFILE): "files",
    os.strerror(errno.ENFILE): "files",
    "No usable temporary directory": "temporary",
}
_MIN_THREADS = 24
_CPU_MARGIN_S = 3
_is_watching = False


def explain_limit(error: BaseException | None) -> LimitError | None:
    """Explain which limit was reached; None for other errors. Some libraries keep only the text of a system error."""
    while error is not None:
        if isinstance(error, MemoryError):
            return LimitError(_REMEDIES["memory"])
        text = str(error)
        if isinstance(error, BlockingIOError) and "fork" in text:
            return LimitError(_REMEDIES["threads"])
        kind = next((kind for sign, kind in _SIGNS.items() if sign in text), None)
        if kind is not None and isinstance(error, OSError | RuntimeError | ImportError):
            return LimitError(f"{' '.join(text.split())[:200]}. {_REMEDIES[kind]}")
        error = error.__cause__ or error.__context__
    return None


def watch_limits() -> None:
    """Make this command report a limit in one sentence.

    Raises:
        LimitError: So few threads are left that libraries would abort the process.
    """
    global _is_watching
    if _is_watching:
        return
    _is_watching = True
    if "VMNET_TRACEBACK" not in os.environ:
        sys.excepthook = _print_limit
    if threading.current_thread() is threading.main_thread():
        _watch_processor_time()
    _check_threads(_MIN_THREADS)


def _print_limit(kind: type[BaseException], error: BaseException, traceback: TracebackType | None) -> None:
    own = error if isinstance(error, LimitError) else explain_limit(error)
    if own is None:
        sys.__excepthook__(kind, error, traceback)
    else:
        sys.stderr.write(f"\n{type(own).__name__}: {own}\n")


def _watch_processor_time() -> None:
    """Lower the soft limit: at the hard one the system kills the process without a message."""
    import resource

    soft, hard = resource.getrlimit(resource.RLIMIT_CPU)
    if soft == resource.RLIM_INFINITY or signal.getsignal(signal.SIGXCPU) != signal.SIG_DFL:
        return

    def end(number: int, frame: FrameType | None) -> None:
        sys.stderr.write(
            f"\nLimitError: The processor time that the shell allows is used up (ulimit -t {soft}). Raise it, and run "
            "again: everything finished so far is kept.\n"
        )
        raise SystemExit(1)  # unlike an error, no handler on the way catches it

    signal.signal(signal.SIGXCPU, end)
    if hard != resource.RLIM_INFINITY:
        with contextlib.suppress(OSError, ValueError):
            resource.setrlimit(resource.RLIMIT_CPU, (max(1, min(soft, hard - _CPU_MARGIN_S)), hard))


def _check_threads(count: int) -> None:
    """Start some threads for a moment, as a C++ library that cannot start one aborts the process."""
    done = threading.Event()
    threads = [threading.Thread(target=done.wait, name="limit", daemon=True) for _ in range(count)]
    started = 0
    try:
        for thread in threads:
            thread.start()
            started += 1
    except RuntimeError as error:
        raise LimitError(
            f"Only {started} more threads or processes can be started, and {count} are needed. Raise a limit "
            f"(ulimit -u, or ulimit -v for their stacks), or end other processes."
        ) from error
    finally:
        done.set()
        for thread in threads[:started]:
            thread.join()
