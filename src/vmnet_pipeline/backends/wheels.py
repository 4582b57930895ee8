"""Have pip download one wheel, so that its own settings (index, proxy) apply."""

from __future__ import annotations

import subprocess
import sys
from typing import TYPE_CHECKING

from vmnet_pipeline.backends.download import MAX_BYTES

if TYPE_CHECKING:
    from pathlib import Path

PIP_TIMEOUT_S = 10
PIP_WAIT_S = 1800
# pip, which may not write a file larger than its first argument: an index that sends without end fills no disk.
_LIMITED_PIP = (
    "import resource, runpy, sys; most = int(sys.argv.pop(1)); resource.setrlimit(resource.RLIMIT_FSIZE, (most, most));"
    "sys.argv[0] = 'pip'; runpy.run_module('pip', run_name='__main__', alter_sys=True)"
)


def download_wheel(name: str, version: str, folder: Path) -> str | None:
    """Download the wheel of a distribution, which is not checked here.

    Returns:
        Why there is none, in words; None if it is in the folder.
    """
    command = [
        *(sys.executable, "-c", _LIMITED_PIP, str(MAX_BYTES), "download", "--quiet", "--no-deps"),
        *("--disable-pip-version-check", "--only-binary", ":all:", "--timeout", str(PIP_TIMEOUT_S), "--retries", "1"),
        *("--dest", str(folder), f"{name}=={version}"),
    ]
    try:
        result = subprocess.run(command, capture_output=True, text=True, check=False, timeout=PIP_WAIT_S)
    except subprocess.TimeoutExpired:
        return f"pip download {name}=={version}: not done within {PIP_WAIT_S} s"
    if result.returncode == 0 and any(folder.glob("*.whl")):
        return None
    return f"pip download {name}=={version}: {_find_reason(result.stderr)}"


def _find_reason(errors: str) -> str:
    """The last line of pip that tells of an error, or the end of its traceback."""
    lines = [line for line in errors.splitlines() if line.strip()]
    told = [line for line in lines if line.startswith("ERROR")]
    if told and told[-1] == "ERROR: Exception:":
        return lines[-1].strip()
    return told[-1] if told else "pip gave no wheel"
