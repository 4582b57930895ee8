"""The service under load, over the loopback: latency by id at a steady rate, many uploads at once, memory.

    python benchmarks/serve.py                             # the demo collection: 200 requests/s for 20 s, 50 uploads
    python benchmarks/serve.py --rate 400 --seconds 60 --uploads 100 --large-mb 150 --json serve.json

The rate is kept whatever the answers do (an open loop), and a latency counts from the moment at which the request was
due: a service that stalls is not spared the requests that it would have delayed. Then uploads of one video, all at the
same time; then uploads of large files of noise, which must neither fill the memory nor stop the service. The collection
is embedded and indexed before: `kedro run --pipelines=embed,index`.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import signal
import subprocess
import sys
import time
import urllib.request
from collections import Counter
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np

HOST = "127.0.0.1"
PIECE = os.urandom(65_536)


class Connection:
    """One HTTP/1.1 connection that is kept open."""

    def __init__(self, port: int) -> None:
        self._port = port
        self._streams: tuple[asyncio.StreamReader, asyncio.StreamWriter] | None = None

    async def request(self, head: str, body: bytes | int) -> tuple[int, bytes]:
        """Status and body; `body` is bytes, or a number of bytes of noise."""
        size = body if isinstance(body, int) else len(body)
        is_used = self._streams is not None
        reader, writer = self._streams = self._streams or await asyncio.open_connection(HOST, self._port)
        writer.write(f"{head}\r\nHost: {HOST}\r\nContent-Length: {size}\r\n\r\n".encode())
        with suppress(ConnectionError):  # refused before the end of the body; the answer is there
            await self._send(writer, body)
        try:
            return await self._receive(reader)
        except (ConnectionError, asyncio.IncompleteReadError):
            self.close()
            if not is_used:
                raise
        return await self.request(head, body)  # the service had closed it for being idle

    async def _send(self, writer: asyncio.StreamWriter, body: bytes | int) -> None:
        if isinstance(body, bytes):
            writer.write(body)
            return await writer.drain()
        for start in range(0, body, len(PIECE)):
            writer.write(PIECE[: min(len(PIECE), body - start)])
            await writer.drain()

    async def _receive(self, reader: asyncio.StreamReader) -> tuple[int, bytes]:
        head = (await reader.readuntil(b"\r\n\r\n")).decode().lower()
        length = int(next(line for line in head.split("\r\n") if line.startswith("content-length:")).split(":")[1])
        content = await reader.readexactly(length)
        if "connection: close" in head:
            self.close()
        return int(head.split()[1]), content

    def close(self) -> None:
        if self._streams is not None:
            self._streams[1].close()
        self._streams = None


async def ask_steadily(port: int, ids: list[str], rate: float, seconds: float) -> dict[str, Any]:
    """Requests by id, one every 1 / rate seconds."""
    free: asyncio.LifoQueue[Connection] = asyncio.LifoQueue()
    latencies, statuses = [], Counter()
    start = time.perf_counter() + 0.1

    async def ask(number: int) -> None:
        due = start + number / rate
        await asyncio.sleep(max(0.0, due - time.perf_counter()))
        connection = Connection(port) if free.empty() else free.get_nowait()
        side = "video" if number % 2 else "music"
        body = json.dumps({"id": ids[number % len(ids)], "query": side}).encode()
        head = "POST /v1/recommendations HTTP/1.1\r\nContent-Type: application/json"
        status, _ = await connection.request(head, body)
        latencies.append(time.perf_counter() - due)
        statuses[status] += 1
        free.put_nowait(connection)

    await asyncio.gather(*(ask(number) for number in range(int(rate * seconds))))
    ms = {f"p{p:g}_ms": round(1000 * float(np.percentile(latencies, p)), 2) for p in (50, 95, 99, 99.9, 100)}
    return {"rate": rate, "seconds": seconds, "n_connections": free.qsize(), "statuses": dict(statuses), **ms}


async def upload_at_once(port: int, n: int, body: bytes | int) -> dict[str, Any]:
    """`n` uploads that begin at the same moment; what each of them is answered."""

    async def upload() -> tuple[str, float]:
        started = time.perf_counter()
        head = "POST /v1/recommendations?query=video HTTP/1.1\r\nContent-Type: application/octet-stream"
        try:
            async with asyncio.timeout(300):
                status, content = await Connection(port).request(head, body)
        except (OSError, EOFError, TimeoutError) as error:
            return f"no answer: {type(error).__name__}", time.perf_counter() - started
        code = json.loads(content).get("error", {}).get("code", "")
        return f"{status} {code}".strip(), time.perf_counter() - started

    answers = await asyncio.gather(*(upload() for _ in range(n)))
    size = body if isinstance(body, int) else len(body)
    counts = dict(Counter(answer for answer, _ in answers))
    slowest = {kind: round(max(s for answer, s in answers if answer == kind), 2) for kind in counts}
    return {"n": n, "mb_each": round(size / 1e6, 2), "answers": counts, "slowest_s": slowest}


async def ask_while_uploading(port: int, ids: list[str], arguments: argparse.Namespace, body: bytes) -> dict[str, Any]:
    """Requests by id while the workers are kept busy."""
    asking = asyncio.create_task(ask_steadily(port, ids, arguments.rate, 5))
    while not asking.done():
        await upload_at_once(port, 4, body)
    return asking.result()


def read_memory(pid: int) -> dict[str, float]:
    """Peak resident memory in MB, of the service and of its workers together."""
    children = Path(f"/proc/{pid}/task/{pid}/children").read_text(encoding="ascii").split()
    peaks = []
    for process in (str(pid), *children):
        lines = Path(f"/proc/{process}/status").read_text(encoding="utf-8").splitlines()
        peaks += [int(line.split()[1]) / 1000 for line in lines if line.startswith("VmHWM")]
    return {"service_mb": round(peaks[0]), "workers_mb": round(sum(peaks[1:]))}


def wait_until_ready(port: int, process: subprocess.Popen[bytes]) -> None:
    for _ in range(1200):
        if process.poll() is not None:
            sys.exit("the service has ended; see what it says above")
        try:
            with urllib.request.urlopen(f"http://{HOST}:{port}/readyz", timeout=5):
                return
        except OSError:
            time.sleep(0.1)
    sys.exit("the service does not get ready")


def measure(port: int, pid: int, arguments: argparse.Namespace) -> dict[str, Any]:
    with urllib.request.urlopen(f"http://{HOST}:{port}/v1/map", timeout=30) as answer:
        points = json.load(answer)["points"]
    ids = sorted({point["id"] for point in points})
    video = arguments.video or next(Path(arguments.media_dir).glob("**/*.mp4"))
    asyncio.run(ask_steadily(port, ids, 50, 1))
    asyncio.run(upload_at_once(port, 1, video.read_bytes()))  # the first one warms the networks up
    results: dict[str, Any] = {"memory_idle": read_memory(pid)}
    results["by_id"] = asyncio.run(ask_steadily(port, ids, arguments.rate, arguments.seconds))
    results["uploads"] = asyncio.run(upload_at_once(port, arguments.uploads, video.read_bytes()))
    results["by_id_during_uploads"] = asyncio.run(ask_while_uploading(port, ids, arguments, video.read_bytes()))
    results["memory_after_uploads"] = read_memory(pid)
    large = int(arguments.large_mb * 1e6)
    results["large_uploads"] = asyncio.run(upload_at_once(port, arguments.uploads // 2, large)) if large else None
    results["memory_after_large_uploads"] = read_memory(pid)
    results["by_id_afterwards"] = asyncio.run(ask_steadily(port, ids, arguments.rate, 2))
    return results


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rate", type=float, default=200.0, help="requests by id per second")
    parser.add_argument("--seconds", type=float, default=20.0)
    parser.add_argument("--uploads", type=int, default=50, help="uploads at once")
    parser.add_argument("--large-mb", type=float, default=100.0, help="size of a large upload; 0: none")
    parser.add_argument("--video", type=Path, help="what is uploaded; by default some video of the collection")
    parser.add_argument("--media-dir", default="data/01_raw/demo")
    parser.add_argument("--port", type=int, default=8399)
    parser.add_argument("--json", type=Path, help="write the figures here too")
    arguments = parser.parse_args()
    command = [
        sys.executable,
        "-m",
        "kedro",
        "serve",
        "--port",
        str(arguments.port),
        "--media-dir",
        arguments.media_dir,
    ]
    process = subprocess.Popen(command)
    try:
        wait_until_ready(arguments.port, process)
        results = measure(arguments.port, process.pid, arguments)
    finally:
        process.send_signal(signal.SIGINT)
        process.wait(60)
    text = json.dumps(results, indent=2)
    print(text)
    if arguments.json:
        arguments.json.write_text(text + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
