"""What tests start hears the signals that a shell has its background ignore."""

import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.process

NAMES = ("SIGINT", "SIGHUP", "SIGQUIT")
BACKGROUND = f"""
import signal, subprocess, sys
for name in {NAMES}:
    signal.signal(getattr(signal, name), signal.SIG_IGN)
import conftest
signal.raise_signal(signal.SIGHUP)  # nohup holds for pytest itself
code = "import signal; print(*(signal.getsignal(getattr(signal, name)) == signal.SIG_IGN for name in {NAMES}))"
print(subprocess.check_output([sys.executable, "-c", code], text=True))
"""


def test_signals_that_the_caller_ignores_are_heard_by_what_tests_start():
    done = subprocess.run(
        [sys.executable, "-c", BACKGROUND], cwd=Path(__file__).parents[1], capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stdout.split()) == (0, ["False"] * 3), done.stderr
