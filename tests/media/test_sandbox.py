"""Reading in child processes: what a crash, a hang and a hunger for memory cost."""

from __future__ import annotations

import functools
import os
import signal
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import bad_readers
import numpy as np
import pytest
from hostile import encode_video

from vmnet_pipeline import processes
from vmnet_pipeline.errors import MediaError, SandboxError
from vmnet_pipeline.media.sandbox import Sandbox
from vmnet_pipeline.params import LimitParams

pytestmark = pytest.mark.process


@pytest.fixture
def sandbox():
    with Sandbox(LimitParams(seconds=20, memory_mb=300)) as sandbox:
        yield sandbox


@pytest.fixture
def number(tmp_path):
    path = tmp_path / "number.txt"
    path.write_text("7")
    return str(path)


def is_running(pid):
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except FileNotFoundError:
        return False


def wait_until(condition, seconds=20.0):
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it never came about"
        time.sleep(0.01)


def refuse(sandbox, reader, path):
    with pytest.raises(MediaError) as caught:
        sandbox.call(reader, path)
    return caught.value


def test_one_child_reads_many_files(sandbox, number):
    pids = {sandbox.call(bad_readers.read, number, factor=6) for _ in range(5)}
    ((pid, value),) = pids
    assert value == 42
    assert pid != os.getpid()


def test_a_refusal_is_that_of_the_function(sandbox, number):
    error = refuse(sandbox, bad_readers.refuse, number)
    assert (error.reason, str(error)) == ("empty_file", f"{number}: nothing in it")


def test_an_unforeseen_error_is_logged_with_its_place(sandbox, number, caplog):
    error = refuse(sandbox, bad_readers.fail, number)
    assert (error.reason, str(error)) == ("internal_error", f"ZeroDivisionError: {number}")
    assert "in fail" in caplog.text


def test_a_crash_costs_one_file(sandbox, number):
    first, _ = sandbox.call(bad_readers.read, number)
    error = refuse(sandbox, bad_readers.crash, number)
    assert error.reason == "decoder_crashed"
    assert number in str(error)
    assert "SIGSEGV" in str(error)
    second, value = sandbox.call(bad_readers.read, number)
    assert (value, second != first) == (7, True)


def test_a_file_is_not_blamed_for_what_another_one_broke(sandbox, number):
    first = sandbox.call(bad_readers.crash_late, number)
    assert sandbox.call(bad_readers.crash_late, number) != first


@pytest.mark.parametrize("reader", [bad_readers.hang, bad_readers.spin])
def test_a_hang_is_ended(reader, tmp_path):
    path = str(tmp_path / "a.mp4")
    with Sandbox(LimitParams(seconds=0.5)) as sandbox:
        sandbox.start(1)
        (child,) = sandbox._everyone
        error = refuse(sandbox, reader, path)
        assert error.reason == "timed_out"
        assert f"{path}: reading it took more than 0.5 s" in str(error)
        assert not is_running(child._process.pid)


@pytest.mark.parametrize("reader", [bad_readers.swallow_memory, bad_readers.answer_too_much])
def test_memory_has_a_limit(sandbox, number, reader):
    error = refuse(sandbox, reader, number)
    assert error.reason == "out_of_memory"
    assert f"{number}: reading it takes more than 300 MB" in str(error)
    assert sandbox.call(bad_readers.read, number)[1] == 7


def test_no_file_pays_for_the_memory_of_those_before_it(sandbox, number):
    """A child of 300 MB that keeps 40 MB of every file would have no room for the seventh."""
    assert len({sandbox.call(bad_readers.leak, number) for _ in range(12)}) == 12
    assert len(sandbox._everyone) == 1


def test_garbage_in_cycles_is_no_growth(sandbox, number):
    assert len({sandbox.call(bad_readers.leak_in_cycle, number) for _ in range(12)}) == 1
    assert sandbox.call(bad_readers.count_data, number) < 110


def test_a_limit_holds_for_all_that_a_child_has(sandbox, number):
    """What a child had before counts: what three files leave behind does not give the fourth more than 300 MB."""
    for _ in range(3):
        sandbox.call(bad_readers.leak_in_cycle, number)
    assert refuse(sandbox, functools.partial(bad_readers.take, megabytes=270), number).reason == "out_of_memory"


def test_a_file_is_not_blamed_for_the_memory_that_others_keep(number):
    with Sandbox(LimitParams(seconds=20, memory_mb=600)) as sandbox:  # of which 75 MB may be kept
        used = sandbox.call(bad_readers.leak, number)
        assert sandbox.call(functools.partial(bad_readers.take, megabytes=500), number) != used


def test_large_pictures_leave_no_memory_behind(tmp_path):
    path = tmp_path / "a.mp4"
    pictures = [np.full((4_096, 4_096, 3), level, np.uint8) for level in (10, 200, 90)]
    encode_video(path, pictures, codec="mpeg4", rotation=(90.0, False, False))
    with Sandbox(LimitParams()) as sandbox:
        counts = [sandbox.call(bad_readers.probe_and_count, str(path)) for _ in range(8)]
    assert len({pid for pid, _ in counts}) == 1
    assert counts[-1][1] - counts[0][1] < 60  # one frame takes 24 MB


def test_threads_get_children_of_their_own(sandbox, number):
    barrier = threading.Barrier(2)
    with ThreadPoolExecutor(2) as pool:

        def read():
            barrier.wait(timeout=30)
            return sandbox.call(bad_readers.read, number)

        first, second = pool.submit(read), pool.submit(read)
        assert first.result()[0] != second.result()[0]


def test_children_may_be_started_before_they_are_needed(sandbox, number):
    sandbox.start(2)
    ready = {child._process.pid for child in sandbox._idle}
    assert len(ready) == 2
    sandbox.start(2)
    assert sandbox.call(bad_readers.read, number)[0] in ready
    assert {child._process.pid for child in sandbox._everyone} == ready


def test_what_is_printed_goes_nowhere(sandbox, number, capfd):
    assert sandbox.call(bad_readers.print_much, number) == 3
    assert capfd.readouterr().out == ""


@pytest.mark.parametrize("reader", ["lambda", "main"])
def test_what_cannot_be_sent_is_called_here_and_said(sandbox, number, caplog, reader, monkeypatch):
    function = {"lambda": lambda path: os.getpid(), "main": functools.partial(os.getpid)}[reader]
    if reader == "main":  # as in a notebook: the child has a `__main__` of its own
        function = make_reader_of_main(monkeypatch)
    assert sandbox.call(function, number) == os.getpid()
    assert sandbox.call(function, number) == os.getpid()
    assert caplog.text.count("read in this process") == 1


def make_reader_of_main(monkeypatch):
    def read_in_main(path):
        return os.getpid()

    read_in_main.__module__, read_in_main.__qualname__ = "__main__", "read_in_main"
    monkeypatch.setattr(sys.modules["__main__"], "read_in_main", read_in_main, raising=False)
    return read_in_main


def test_children_end_with_the_sandbox(number):
    sandbox = Sandbox(LimitParams())
    pid, _ = sandbox.call(bad_readers.read, number)
    assert is_running(pid)
    del sandbox
    wait_until(lambda: not is_running(pid))


PARENT = """
import sys
import bad_readers
from vmnet_pipeline.media.sandbox import Sandbox
from vmnet_pipeline.params import LimitParams
sandbox = Sandbox(LimitParams())
sandbox.start(1)
print(*(child._process.pid for child in sandbox._everyone), flush=True)
sandbox.call(bad_readers.hang, sys.argv[1])
"""


def test_a_hanging_child_ends_with_a_killed_parent(tmp_path):
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    command = [sys.executable, "-c", PARENT, str(pipe)]
    with subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True) as parent:
        child = int(parent.stdout.readline())
        with pipe.open("w"):
            assert is_running(child)
            parent.send_signal(signal.SIGKILL)
            parent.wait()
    wait_until(lambda: not is_running(child))


def test_a_child_that_cannot_start_is_no_fault_of_a_file(sandbox, number, monkeypatch):
    monkeypatch.setattr(processes, "_PROGRAM", "raise SystemExit(3)")
    with pytest.raises(SandboxError, match="exit code 3"):
        sandbox.call(bad_readers.read, number)
    monkeypatch.setattr(sys, "executable", "/none")
    with pytest.raises(SandboxError, match="No such file"):
        sandbox.call(bad_readers.read, number)


LIMITED = """
import resource
from vmnet_pipeline.media.sandbox_child import _limit_next_call
resource.setrlimit(resource.RLIMIT_CPU, (100, 100))
_limit_next_call(1000.0, 64)
print(resource.getrlimit(resource.RLIMIT_AS)[0] != resource.RLIM_INFINITY)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="memory is limited on Linux only")
def test_a_limit_of_the_system_on_time_leaves_that_on_memory():
    child = subprocess.run([sys.executable, "-c", LIMITED], capture_output=True, text=True, check=True)
    assert child.stdout == "True\n"


def test_a_child_that_the_system_ends_for_its_time_is_told_of_without_a_limit_of_ours(number):
    with Sandbox(LimitParams(seconds=None)) as sandbox:
        error = refuse(sandbox, bad_readers.run_out_of_time, number)
    assert error.reason == "decoder_crashed"
    assert "SIGXCPU" in str(error)


def test_a_generator_is_read_value_by_value(sandbox, number):
    assert list(sandbox.stream(bad_readers.count, number, n=3)) == [0, 1, 2]
    assert list(sandbox.stream(bad_readers.count, number, n=0)) == []
    assert sandbox.call(bad_readers.read, number)[1] == 7  # the same child takes other calls


def test_a_stream_may_be_larger_than_the_memory_of_its_child(sandbox, number):
    sizes = [len(part) for part in sandbox.stream(bad_readers.yield_arrays, number, n=20, n_bytes=50_000_000)]
    assert sum(sizes) == 1_000_000_000


def test_an_error_in_the_middle_comes_after_the_values_before_it(sandbox, number):
    values = []
    with pytest.raises(MediaError, match="no more"):
        values.extend(sandbox.stream(bad_readers.count_and_refuse, number, n=2))
    stream = sandbox.stream(bad_readers.count_and_crash, number, n=2)
    assert [next(stream), next(stream)] == [0, 1]
    with pytest.raises(MediaError, match="decoder fail") as caught:
        next(stream)
    assert caught.value.reason == "decoder_crashed"


def test_the_child_of_a_stream_that_is_left_ends(sandbox, number):
    pid = sandbox.call(bad_readers.read, number)[0]
    stream = sandbox.stream(bad_readers.count, number, n=1000)
    assert next(stream) == 0
    stream.close()
    wait_until(lambda: not is_running(pid))
    assert sandbox.call(bad_readers.read, number)[1] == 7


def test_a_generator_function_is_not_for_call(sandbox, number):
    with pytest.raises(MediaError):
        sandbox.call(bad_readers.count, number, n=2)
