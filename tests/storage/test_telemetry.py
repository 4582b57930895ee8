"""Nothing of what this project controls reports its use: no connection is as much as tried."""

import os
import subprocess
import sys

import pytest

pytestmark = pytest.mark.process

WATCH = """
import os, socket
def record(address):
    with open(os.environ["VMNET_TEST_CONNECTIONS"], "a") as file:
        file.write(f"{address}\\n")
    raise OSError("there is no network")
class Socket(socket.socket):
    def connect(self, address):
        record(address)
    connect_ex = connect
socket.socket = Socket
socket.getaddrinfo = lambda host, *others, **options: record(host)
"""
PROGRAM = ["-c", "from vmnet_pipeline.__main__ import main; main()"]
OPTED = ("DO_NOT_TRACK", "KEDRO_DISABLE_TELEMETRY", "MLFLOW_DISABLE_TELEMETRY")


def list_connections(folder, *arguments, code=0):
    """Addresses that a program tries to reach."""
    seen = folder / "connections.txt"
    (folder / "sitecustomize.py").write_text(WATCH)
    home = folder / "home"
    home.mkdir(exist_ok=True)
    environment = {name: value for name, value in os.environ.items() if name not in OPTED}
    place = os.pathsep.join([str(folder), *filter(None, sys.path)])
    environment |= {"PYTHONPATH": place, "VMNET_TEST_CONNECTIONS": str(seen), "HOME": str(home), "CI": ""}
    done = subprocess.run(
        [sys.executable, *arguments], cwd=folder, env=environment, capture_output=True, text=True, timeout=200,
        check=False,
    )  # fmt: skip
    assert done.returncode == code, done.stderr[-3000:]
    return seen.read_text().splitlines() if seen.exists() else []


@pytest.mark.parametrize(
    "arguments", [["--help"], ["weights", "list"], ["registry", "list"], ["demo-media", "--pairs", "4"]], ids=" ".join
)
def test_the_program_of_the_package_outside_of_a_project(tmp_path, arguments):
    assert list_connections(tmp_path, *PROGRAM, *arguments) == []


def test_kedro_in_a_project_that_lost_its_dot_file(tmp_path):
    done = subprocess.run([sys.executable, *PROGRAM, "new-project", "mine"], cwd=tmp_path, check=False)
    assert done.returncode == 0
    (tmp_path / "mine" / ".telemetry").unlink()
    for arguments in (["weights", "list"], ["registry", "list"]):
        assert list_connections(tmp_path / "mine", "-m", "kedro", *arguments) == []


def test_a_switch_that_is_set_but_empty_counts_as_not_set(monkeypatch):
    from vmnet_pipeline.storage.telemetry import disable_telemetry

    monkeypatch.setenv("KEDRO_DISABLE_TELEMETRY", "")
    monkeypatch.setenv("MLFLOW_DISABLE_TELEMETRY", "false")
    disable_telemetry()
    assert os.environ["KEDRO_DISABLE_TELEMETRY"] == "1"
    assert os.environ["MLFLOW_DISABLE_TELEMETRY"] == "false"  # the user's own word


def test_what_is_kedros_is_seen_by_this_test(tmp_path):
    """Its own commands outside of a project report, as the pages say; were it not so, the others would tell nothing."""
    assert any("heapanalytics" in address for address in list_connections(tmp_path, "-m", "kedro", "info"))
