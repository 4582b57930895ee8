"""Progress: a bar on a terminal, sparse lines in a log."""

from __future__ import annotations

import logging
import os
import pty
import subprocess
import sys
import termios

import pytest

from vmnet_pipeline import progress as console
from vmnet_pipeline.progress import track, track_each

PROGRAM = """
import logging, sys, time
logging.basicConfig(level="INFO", stream=sys.stderr)
from vmnet_pipeline.progress import track_each
for _ in track_each("work", range(3), 3):
    time.sleep(0.15)  # tqdm draws ten times a second
"""


@pytest.fixture
def clock(monkeypatch):
    """Seconds that pass when the test says so."""
    now = [0.0]
    monkeypatch.setattr(console.time, "monotonic", lambda: now[0])
    return now


def test_a_log_gets_a_line_every_half_minute_and_one_at_the_end(clock, caplog):
    caplog.set_level(logging.INFO)
    with track("work", 100) as progress:
        for _ in range(100):
            clock[0] += 1.0
            progress.advance(failed=clock[0] == 5.0)
    lines = [record.getMessage() for record in caplog.records]
    assert [line.split()[1] for line in lines] == ["30", "60", "90", "100"]
    assert lines[1] == "work: 60 of 100, 1 failed, 1 min 0 s, 40.0 s left"
    assert lines[-1] == "work: 100 of 100, 1 failed, 1 min 40 s"


def test_few_long_items_have_a_line_each_that_says_how_long_the_rest_takes(clock, caplog):
    """As a comparison: 9 of 10, 2 min left."""
    caplog.set_level(logging.INFO)
    with track("comparison", 10, log_every_s=0) as progress:
        for _ in range(10):
            clock[0] += 120.0
            progress.advance()
    lines = [record.getMessage() for record in caplog.records]
    assert lines[-2:] == ["comparison: 9 of 10, 18 min 0 s, 2 min 0 s left", "comparison: 10 of 10, 20 min 0 s"]
    assert len(lines) == 10


def test_many_items_at_once(clock, caplog):
    caplog.set_level(logging.INFO)
    with track("work", 2000) as progress:
        clock[0] = 31.0
        progress.add(1500)
        progress.add(500)
    assert [record.getMessage().split()[1] for record in caplog.records] == ["1,500", "2,000"]


def test_items_are_passed_on_and_the_end_is_told_also_after_an_error(caplog):
    caplog.set_level(logging.INFO)
    items = track_each("work", "abc", 3)
    assert next(items) == "a"
    assert next(items) == "b"
    items.close()
    assert "1 of 3" in caplog.text


def run_piped(**environment: str) -> str:
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM], capture_output=True, text=True, env={**os.environ, **environment}, check=True
    )
    return done.stderr


def run_on_terminal() -> str:
    here, there = pty.openpty()
    termios.tcsetwinsize(there, (24, 80))
    with subprocess.Popen([sys.executable, "-c", PROGRAM], stderr=there, stdout=there) as process:
        os.close(there)
        shown = b""
        while True:
            try:
                part = os.read(here, 4096)
            except OSError:  # how Linux says that the other end is closed
                break
            if not part:
                break
            shown += part
        process.wait()
    os.close(here)
    return shown.decode()


@pytest.mark.process
def test_a_pipe_gets_no_bar_and_a_terminal_does(monkeypatch):
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(path for path in sys.path if path))
    piped = run_piped()
    assert "\r" not in piped
    assert piped.count("\n") == 1
    assert "3 of 3" in piped
    shown = run_on_terminal()
    assert "work:  33%" in shown
    assert "\x1b[3" not in shown  # no colours either


def test_a_step_whose_work_is_there_says_nothing(caplog):
    caplog.set_level(logging.INFO)
    with track("work", 3):
        pass
    assert caplog.records == []
