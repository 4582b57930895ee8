"""`kedro serve` as a process."""

import sys
from pathlib import Path

import httpx

sys.path.insert(0, str(Path(__file__).parents[1] / "torture"))
from serve_process import ServeProcess, find_port, make_project


def test_the_command_serves_until_it_is_told_to_end(places, tmp_path):
    make_project(tmp_path / "project")
    process = ServeProcess(tmp_path / "project", places, port=find_port(), settings=["max_top_k=2"])
    try:
        process.start("/healthz")
        address = f"http://127.0.0.1:{process.port}/v1/recommendations"
        assert len(httpx.post(address, json={"id": "0001", "top_k": 5}, timeout=60).json()["results"]) == 2
        assert process.end() in (0, -15)
    finally:
        process.end(9)
    log = process.log.read_text()
    assert f"http://127.0.0.1:{process.port}/" in log
    assert "Traceback" not in log
    assert list(process.temporary.glob("vmnet-uploads-*")) == []
