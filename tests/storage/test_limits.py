"""Limits of the shell end a command with one sentence."""

import errno
import os
import resource
import subprocess
import sys
import threading

import click
import pytest

from vmnet_pipeline.commands.errors import report_errors
from vmnet_pipeline.errors import LimitError
from vmnet_pipeline.hooks.error_messages import find_own_error
from vmnet_pipeline.storage import limits

WATCH = "from vmnet_pipeline.storage.limits import watch_limits; watch_limits(); "


def run(code, **given):
    """A program of its own below limits of `resource`, by name: (soft, hard)."""

    def set_limits():
        for name, values in given.items():
            resource.setrlimit(getattr(resource, name), values)

    return subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
        preexec_fn=set_limits,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
    )


def check_sentence(done, *parts):
    assert done.returncode == 1, done.stderr
    assert "Traceback" not in done.stderr
    lines = [line for line in done.stderr.splitlines() if line.strip()]
    assert len(lines) == 1
    assert lines[0].startswith("LimitError: ")
    for part in parts:
        assert part in lines[0]


@pytest.mark.process
@pytest.mark.parametrize("limit", [(5, 5), (1, resource.RLIM_INFINITY)])
def test_processor_time(limit):
    loop = "\nwhile True:\n try:\n  sum(range(10000))\n except Exception:\n  pass"  # nothing takes it for its own
    check_sentence(run(WATCH + loop, RLIMIT_CPU=limit), "processor time", f"ulimit -t {limit[0]}")


@pytest.mark.process
def test_memory():
    gigabyte = 1 << 30
    done = run(WATCH + f"bytearray(8 * {gigabyte})", RLIMIT_AS=(2 * gigabyte, 2 * gigabyte))
    check_sentence(done, "memory", "ulimit -v")


@pytest.mark.process
def test_memory_that_leaves_no_place_for_threads():
    done = run(WATCH, RLIMIT_AS=(150 << 20, 150 << 20))
    check_sentence(done, "threads", "ulimit -v")


@pytest.mark.process
def test_open_files():
    done = run(WATCH + "files = [open('/dev/null') for _ in range(1000)]", RLIMIT_NOFILE=(64, 64))
    check_sentence(done, "Too many open files", "ulimit -n")


@pytest.mark.process
def test_a_traceback_stays_where_it_is_asked_for_and_for_other_errors():
    assert "Traceback" in run(WATCH + "1 / 0").stderr
    code = "import os; os.environ['VMNET_TRACEBACK'] = '1'; " + WATCH + "raise MemoryError"
    assert "Traceback" in run(code).stderr


def test_too_few_threads_are_found_before_a_library_aborts(monkeypatch):
    start, started = threading.Thread.start, []

    def start_some(thread):
        if len(started) == 7:
            raise RuntimeError("can't start new thread")
        started.append(thread)
        start(thread)

    monkeypatch.setattr(threading.Thread, "start", start_some)
    with pytest.raises(LimitError, match=r"Only 7 more threads .* 24 are needed.*ulimit -u"):
        limits._check_threads(24)
    assert not any(thread.is_alive() for thread in started)


@pytest.mark.process
@pytest.mark.skipif(os.geteuid() == 0, reason="the system sets no limit to the threads of root")
def test_threads():
    check_sentence(run(WATCH, RLIMIT_NPROC=(12, 12)), "threads", "ulimit -u")


@pytest.mark.parametrize(
    ("error", "part"),
    [
        (MemoryError(), "ulimit -v"),
        (OSError(errno.ENOMEM, "Cannot allocate memory"), "ulimit -v"),
        (RuntimeError("[enforce fail at alloc_cpu.cpp:127] DefaultCPUAllocator: can't allocate memory"), "ulimit -v"),
        (ImportError("libx.so: failed to map segment from shared object"), "ulimit -v"),
        (RuntimeError("can't start new thread"), "ulimit -u"),
        (OSError(errno.EMFILE, "Too many open files"), "ulimit -n"),
        (FileNotFoundError(errno.ENOENT, "No usable temporary directory found in ['/tmp']"), "TMPDIR"),
        (OSError(errno.EFBIG, "File too large"), "a shell limit"),
        (OSError(errno.ENOSPC, "No space left on device"), "Free some space"),
        (OSError(errno.EDQUOT, "Disk quota exceeded"), "quota"),
        (OSError(errno.EROFS, "Read-only file system"), "a location that can be written"),
        (PermissionError(errno.EACCES, "Permission denied"), "permissions"),
    ],
)
def test_runs_and_commands_say_it_in_words(error, part):
    outer = RuntimeError("Failed while saving")
    outer.__cause__ = error
    own = find_own_error(outer)
    assert own is not None
    assert part in str(own)
    with pytest.raises(click.ClickException, match=part.replace("-", r"\-")), report_errors():
        raise error


def test_other_errors_stay_what_they_are():
    assert limits.explain_limit(ValueError("can't start new thread")) is None
    with pytest.raises(ZeroDivisionError), report_errors():
        raise ZeroDivisionError
