"""`python -m vmnet_pipeline` is `kedro run`."""

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]


def test_module_takes_the_options_of_kedro_run():
    command = [sys.executable, "-m", "vmnet_pipeline", "--pipeline", "no_such_pipeline"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert "no_such_pipeline" in done.stdout + done.stderr
