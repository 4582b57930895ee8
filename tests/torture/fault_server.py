"""Starts `kedro` commands in forked processes: what takes seconds to import is imported once.

    python fault_server.py < requests > replies        one JSON object per line

`{"do": "start", "project", "arguments", "log", "fault", "tracks"}` is answered by `{"pid"}`, the leader of a process
group; `{"do": "wait", "pid", "seconds"}` by `{"code"}`, null while it runs. `fault` arms the library of fault_shim.c,
which this process has been started with. It runs nothing itself, so that no thread is lost by forking.
"""

from __future__ import annotations

import ctypes
import importlib
import json
import os
import sys
import time
import traceback
from pathlib import Path

IMPORTS = (
    "av",
    "faiss",
    "kedro.framework.cli.cli",
    "kedro.framework.session",
    "kedro.runner.sequential_runner",
    "kedro_datasets.json",
    "kedro_datasets.matplotlib",
    "kedro_datasets.pandas",
    "kedro_datasets.text",
    "kedro_mlflow.framework.hooks",
    "librosa",
    "matplotlib.pyplot",
    "mlflow.pyfunc",
    "mlflow.store.tracking.sqlalchemy_store",
    "pyarrow.parquet",
    "safetensors.torch",
    "soxr",
    "threadpoolctl",
    "torch",
    "vmnet_pipeline.backends.efficientnet",
    "vmnet_pipeline.backends.musicnn",
    "vmnet_pipeline.extraction.driver",
    "vmnet_pipeline.reporting.report",
    "vmnet_pipeline.search.index_files",
    "vmnet_pipeline.inference.embeddings",
    "vmnet_pipeline.training.ensembles",
)


def main() -> None:
    replies = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)
    for name in IMPORTS:
        importlib.import_module(name)
    threads = {path.read_text().strip() for path in Path("/proc/self/task").glob("*/comm")}
    if others := threads - {Path("/proc/self/comm").read_text().strip(), "jemalloc_bg_thd"}:
        sys.exit(f"a forked process would lose the threads {others}")
    children: dict[int, int | None] = {}
    say(replies, {"ready": True})
    for line in sys.stdin:
        request = json.loads(line)
        if request["do"] == "start":
            say(replies, {"pid": start(request, children)})
        else:
            say(replies, {"code": wait(request["pid"], request["seconds"], children)})


def say(replies, content: dict) -> None:
    replies.write(json.dumps(content) + "\n")
    replies.flush()


def start(request: dict, children: dict[int, int | None]) -> int:
    pid = os.fork()
    if pid:
        children[pid] = None
        return pid
    os.setsid()
    code = 1
    try:
        log = os.open(request["log"], os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
        os.dup2(log, 1)
        os.dup2(log, 2)
        os.chdir(request["project"])
        if request["fault"]:
            arm(**request["fault"])
        if not request["tracks"]:
            leave_plugins_out()
        code = run_kedro(request["arguments"])
        if request["fault"]:
            print("fault_operations", ctypes.CDLL(None).fault_count())
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


def arm(*, folder: str, at: int = 0, error: int = 0, jump_s: int = 0) -> None:
    """Tell the library what is to go wrong, see fault_shim.c."""
    ctypes.CDLL(None).fault_arm(folder.encode(), ctypes.c_long(at), error, ctypes.c_long(jump_s))


def leave_plugins_out() -> None:
    """No hooks of other packages, so no MLflow: its database takes longer than a tiny stage."""
    from kedro.framework.session import session

    session._register_hooks_entry_points = lambda *_: None


def run_kedro(arguments: list[str]) -> int:
    """The command as a terminal has it; an error goes through the hook that prints it."""
    from kedro.framework.cli import main as kedro

    sys.argv = ["kedro", *arguments]
    try:
        kedro()
    except SystemExit as end:
        return end.code if isinstance(end.code, int) else int(end.code is not None)
    except BaseException as error:
        sys.excepthook(type(error), error, error.__traceback__)
        return 1
    return 0


def wait(pid: int, seconds: float | None, children: dict[int, int | None]) -> int | None:
    """Exit code of a process, negative for a signal; None if it runs on after `seconds`."""
    deadline = time.monotonic() + (seconds or 0)
    while children[pid] is None:
        found, status = os.waitpid(pid, 0 if seconds is None else os.WNOHANG)
        if found:
            children[pid] = os.waitstatus_to_exitcode(status)
        elif time.monotonic() >= deadline:
            break
        else:
            time.sleep(0.01)
    return children[pid]


if __name__ == "__main__":
    sys.path.pop(0)
    sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "src"))
    main()
