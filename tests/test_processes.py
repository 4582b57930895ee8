"""Child processes: what they answer, how they end, and with whom."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from vmnet_pipeline.processes import ChildProcess

pytestmark = pytest.mark.process


def answer(connection, factor):
    while True:
        connection.send(connection.recv() * factor)


def end_with(connection, code):
    os._exit(code)


def sleep_on(connection):
    connection.recv()
    time.sleep(3600)


def tell_about_itself(connection):
    variables = sorted(name for name in os.environ if name.startswith("VMNET_TEST"))
    connection.send((variables, str(Path("/proc/self/fd/1").readlink()), str(Path("/proc/self/fd/0").readlink())))


def is_running(pid):
    try:
        return "Z" not in Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except FileNotFoundError:
        return False


def wait_until_gone(pid):
    deadline = time.monotonic() + 30
    while is_running(pid) and time.monotonic() < deadline:
        time.sleep(0.02)
    return not is_running(pid)


@pytest.fixture
def start():
    started = []

    def start_one(target, *arguments, **options):
        started.append(ChildProcess(target, *arguments, name="test", **options))
        return started[-1]

    yield start_one
    for process in started:
        process.end()


def test_a_child_answers_one_task_after_the_other(start):
    process = start(answer, 3)
    assert [process.ask(value, 60) for value in (2, "ab")] == [6, "ababab"]
    assert process.is_alive
    process.end()
    assert not process.is_alive
    assert process.describe_end() == "SIGKILL"
    process.end()  # once more is no harm
    with pytest.raises(EOFError):
        process.ask(1, 1)


def test_a_child_that_does_not_answer_is_still_there(start):
    process = start(sleep_on)
    with pytest.raises(TimeoutError):
        process.ask("", 0.01)
    assert process.is_alive
    process.kill()
    with pytest.raises(EOFError):
        process.receive(60)
    assert process.describe_end() == "SIGKILL"


def test_a_child_may_end_by_itself(start):
    process = start(end_with, 7)
    process.end(grace_s=60)
    assert process.describe_end() == "exit code 7"


def test_an_error_of_the_function_ends_the_child(start):
    process = start(answer, None)
    with pytest.raises(EOFError):
        process.ask(1, 60)
    process.end(grace_s=60)
    assert process.describe_end() == "exit code 1"


@pytest.mark.skipif(sys.platform != "linux", reason="asks /proc")
def test_a_child_with_an_environment_gets_nothing_else(start, monkeypatch):
    monkeypatch.setenv("VMNET_TEST_SECRET", "1")
    variables, output, _ = start(tell_about_itself).receive(60)
    assert variables == ["VMNET_TEST_SECRET"]
    assert output == str(Path("/proc/self/fd/1").readlink())
    bare = start(tell_about_itself, environment={"VMNET_TEST_OTHER": "2"})
    variables, output, entry = bare.receive(60)
    assert (variables, output) == (["VMNET_TEST_OTHER"], "/dev/null")
    assert entry.startswith("pipe:")


PARENT = """
import os, sys, time
from vmnet_pipeline.processes import ChildProcess

def hang(connection):
    connection.send(os.getpid())
    import ctypes
    ctypes.PyDLL(None).sleep(3600)  # holds the interpreter's lock, as a decoder may: no thread of Python runs

if __name__ == "__main__":
    process = ChildProcess(hang, name="test")
    print(process.receive(60), flush=True)
    time.sleep(3600)
"""


@pytest.fixture
def parent(tmp_path):
    script = tmp_path / "parent.py"
    script.write_text(PARENT)
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    command = [sys.executable, str(script)]
    with subprocess.Popen(
        command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True
    ) as started:
        yield started
        started.kill()


@pytest.mark.skipif(sys.platform != "linux", reason="pipes are signalled on Linux")
@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_a_child_that_hangs_ends_with_its_parent(parent, number):
    """Its function is of the script that the parent runs, as a backend may be."""
    pid = int(parent.stdout.readline())
    assert is_running(pid)
    parent.send_signal(number)
    assert wait_until_gone(pid)


@pytest.mark.skipif(sys.platform != "linux", reason="asks /proc")
def test_ctrl_c_is_the_parents(parent):
    pid = int(parent.stdout.readline())
    status = Path(f"/proc/{pid}/status").read_text()
    blocked = int(status.split("SigBlk:")[1].split()[0], 16)
    assert blocked & 1 << (signal.SIGINT - 1)
    os.kill(pid, signal.SIGINT)
    time.sleep(0.2)
    assert is_running(pid)


def test_a_script_without_a_guard_does_not_start_children_without_end(tmp_path):
    script = tmp_path / "unguarded.py"
    script.write_text(PARENT.replace('if __name__ == "__main__":', "if True:"))
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    ended = subprocess.run([sys.executable, str(script)], env=environment, capture_output=True, text=True, timeout=120)
    assert ended.returncode == 1
    assert ended.stderr.count("bootstrapping phase") == 1
    assert "EOFError" in ended.stderr
