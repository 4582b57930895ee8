"""Searches beside uploads that arrive in the smallest possible pieces, as fast as they are taken.

    python tests/torture/small_chunks.py                       # a bare loop, then 1 and 4 clients of each kind

Each client is a process of its own. A latency counts from the moment at which the search was due.
"""

from __future__ import annotations

import argparse
import asyncio
import multiprocessing
import socket
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

sys.path.insert(0, str(Path(__file__).parent))
from serve_process import ServeProcess, find_port, make_collection

if TYPE_CHECKING:
    from multiprocessing.synchronize import Event

HOST = "127.0.0.1"
_UPLOAD = f"POST /v1/embeddings HTTP/1.1\r\nHost: {HOST}\r\nContent-Type: "
_CHUNKED = _UPLOAD + "application/octet-stream\r\nTransfer-Encoding: chunked\r\n\r\n"
_FORM = _UPLOAD + "multipart/form-data; boundary=b\r\nContent-Length: 100000000\r\n\r\n"
_FORM += '--b\r\nContent-Disposition: form-data; name="file"; filename="a"\r\n\r\n'
KINDS = {
    "one byte a chunk": (_CHUNKED, b"1\r\nx\r\n"),
    "16 bytes a chunk": (_CHUNKED, b"10\r\n0123456789abcdef\r\n"),
    "extensions": (_CHUNKED, b"1;" + b"a" * 60 + b"\r\nx\r\n"),
    "a form of line ends": (_FORM, b"\r\n-"),
    "small requests": ("", f"GET /healthz HTTP/1.1\r\nHost: {HOST}\r\n\r\n".encode()),
}
"""What begins a body, and what it goes on with."""


def flood(port: int, kind: str, ending: Event) -> None:
    """Send one body after the other until told to end."""
    start, piece = KINDS[kind]
    many = piece * (65_536 // len(piece))
    while not ending.is_set():
        try:
            with socket.create_connection((HOST, port), timeout=2) as connection:
                connection.sendall(start.encode())
                while not ending.is_set():
                    _send(connection, many, ending)
        except OSError:
            continue


def _send(connection: socket.socket, data: bytes, ending: Event) -> None:
    view = memoryview(data)
    while len(view) and not ending.is_set():
        try:
            view = view[connection.send(view) :]
        except TimeoutError:
            continue


def measure(port: int, ids: list[str], kind: str, n_clients: int, *, rate: float, seconds: float) -> dict[str, object]:
    """Latencies of searches by id while `n_clients` send."""
    from serve import ask_steadily

    context = multiprocessing.get_context("spawn")
    ending = context.Event()
    clients = [context.Process(target=flood, args=(port, kind, ending), daemon=True) for _ in range(n_clients)]
    for client in clients:
        client.start()
    try:
        asyncio.run(ask_steadily(port, ids, rate, 1.0))
        return asyncio.run(ask_steadily(port, ids, rate, seconds))
    finally:
        ending.set()
        for client in clients:
            client.join()


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--clients", type=int, nargs="+", default=[1, 4])
    parser.add_argument("--seconds", type=float, default=5.0)
    parser.add_argument("--rate", type=float, default=50.0, help="searches per second")
    parser.add_argument("--kinds", nargs="+", choices=KINDS, default=list(KINDS))
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="chunks-") as name:
        folder = Path(name)
        places = make_collection(folder)
        ids = [f"{number:04}" for number in range(1, 7)]
        with ServeProcess(folder, places, port=find_port()) as process:
            for kind in arguments.kinds:
                for n in (0, *arguments.clients) if kind == arguments.kinds[0] else arguments.clients:
                    found = measure(process.port, ids, kind, n, rate=arguments.rate, seconds=arguments.seconds)
                    print(f"{kind}, {n} clients: p50 {found['p50_ms']} p99 {found['p99_ms']} max {found['p100_ms']} ms,"
                          f" {found['statuses']}", flush=True)  # fmt: skip
    return 0


if __name__ == "__main__":
    sys.exit(main())
