"""Hostile requests over bare sockets, and what every reply has to keep to."""

from __future__ import annotations

import json
import re
import socket
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from hostile_requests import (
    HOST,
    Server,
    ask_ranges,
    flip_requests,
    forge_hosts,
    forge_origins,
    guess_keys,
    make_request,
    post_json,
    send_forms,
    send_json_bombs,
    send_odd_heads,
    use_methods,
    walk_paths,
)
from row import Row

if TYPE_CHECKING:
    from collections.abc import Iterable

FINE = frozenset({200, 204, 206, 304, 307, 400, 401, 403, 404, 405, 408, 413, 416, 422, 429, 503, 504})
"""What a hostile request may be answered with; 500 and 501 are not among it."""
REQUIRED = ("x-content-type-options", "content-security-policy", "referrer-policy", "x-frame-options", "cache-control")
LEAKS = re.compile(
    rb"Traceback|File \"|site-packages|\.py\b.{0,9}line|/usr/|/root|/home/|/tmp/|/etc/passwd|root:x|vmnet-uploads"
)


@dataclass(slots=True)
class Reply:
    """One answer; `status` is 0 where the service only closed the connection, -1 where it did nothing at all."""

    status: int
    headers: dict[str, str] = field(default_factory=dict)
    body: bytes = b""
    raw: bytes = b""


def talk(server: Server, *pieces: bytes, pause_s: float = 0.0, timeout_s: float = 8.0) -> Reply:
    """Send the pieces, then read until the answer is whole or the connection is closed."""
    with socket.create_connection((HOST, server.port), timeout=timeout_s) as connection:
        try:
            for piece in pieces:
                connection.sendall(piece)
                time.sleep(pause_s)
        except OSError:
            pass  # refused before the end; there may be an answer
        return _receive(connection, time.monotonic() + timeout_s, is_head=pieces[0][:5] == b"HEAD ")


def _receive(connection: socket.socket, deadline: float, *, is_head: bool) -> Reply:
    received = b""
    while time.monotonic() < deadline:
        try:
            piece = connection.recv(1 << 20)
        except TimeoutError:
            break
        except OSError:
            piece = b""
        if not piece:
            return _parse(received) if received else Reply(0)
        received += piece
        reply = _parse(received)
        length = 0 if is_head else int(reply.headers.get("content-length", -1))
        if b"\r\n\r\n" in received and len(reply.body) >= length >= 0:
            return reply
    return _parse(received) if received else Reply(-1)


def _parse(received: bytes) -> Reply:
    head, _, body = received.partition(b"\r\n\r\n")
    first, *lines = head.decode("latin-1").split("\r\n")
    headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
    words, length = first.split(), headers.get("content-length", "")
    body = body[: int(length)] if length.isdigit() else body  # more answers may follow
    return Reply(int(words[1]) if len(words) > 1 and words[1].isdigit() else -2, headers, body, received)


def find_fault(server: Server, reply: Reply) -> str:
    """What a reply does not keep to; empty for none."""
    if reply.status == 0:
        return ""
    if reply.status == -1:
        return "no answer, and the connection stays open"
    if reply.status not in FINE:
        return f"status {reply.status}: {reply.body[:200]!r}"
    missing = [name for name in REQUIRED if name not in reply.headers]
    if missing:
        return f"status {reply.status} without {', '.join(missing)}"
    leak = LEAKS.search(reply.raw)
    told = [secret for secret in server.secrets if secret in reply.raw]
    if leak or told:
        return f"status {reply.status} tells {told or (leak and leak[0])!r}"
    if "access-control-allow-origin" in reply.headers:
        return "it lets pages of other origins read"
    is_json = reply.headers.get("content-type", "").startswith("application/json")
    if (
        reply.status >= 400
        and reply.body
        and not (is_json and set(json.loads(reply.body).get("error", ())) == {"code", "message"})
    ):
        return f"status {reply.status} in another form: {reply.body[:100]!r}"
    return ""


def attack(
    server: Server,
    what: str,
    requests: Iterable[bytes],
    allowed: Iterable[int] = FINE,
    *,
    patience_s: float | None = None,
) -> Row:
    """Send requests one after the other; a row of what they were answered with.

    With `patience_s`, requests may lack their end, and the service may wait for it for longer than that.
    """
    ended: Counter[str] = Counter()
    failures, tried, permitted = [], 0, {0, *allowed}
    for request in requests:
        tried += 1
        reply = talk(server, request, timeout_s=patience_s or 8.0)
        if patience_s and reply.status == -1:
            ended["waits"] += 1
            continue
        fault = find_fault(server, reply)
        if not fault and reply.status not in permitted:
            fault = f"answered with {reply.status}"
        if fault:
            failures.append(f"{request[:160]!r}: {fault}")
        else:
            ended[str(reply.status or "closed")] += 1
    return Row(what, tried, dict(ended), failures)


# --- attacks in time


def be_slow(server: Server, limit_s: float) -> Row:
    """Heads and bodies that come a byte at a time, or not at all: the connection has to end in time."""
    start = make_request(
        server, "POST", "/v1/embeddings", Content_Type="application/octet-stream", Content_Length="100000"
    )
    kinds = {
        "nothing": (b"",),
        "head": tuple(bytes([byte]) for byte in start[:-2]),
        "no end of the head": (start[:-2],),
        "no body": (start,),
        "body": (start, *[b"x"] * 1000),
        "chunks": (start.replace(b"Content-Length: 100000", b"Transfer-Encoding: chunked"), *[b"1\r\nx\r\n"] * 1000),
        "second head": (make_request(server, "GET", "/healthz"), b"GET / HT"),
    }
    ended: Counter[str] = Counter()
    failures = []
    with ThreadPoolExecutor(len(kinds)) as threads:
        found = threads.map(lambda pieces: _drip(server, pieces, limit_s + 10), kinds.values())
    for name, (status, seconds) in zip(kinds, found, strict=True):
        if seconds > limit_s + 5 or status not in (0, 200, 408):
            failures.append(f"{name}: {status} after {seconds:.1f} s")
        else:
            ended[str(status or "closed")] += 1
    return Row("slow heads and bodies", len(kinds), dict(ended), failures)


def _drip(server: Server, pieces: tuple[bytes, ...], timeout_s: float) -> tuple[int, float]:
    """Send pieces 50 ms apart until the service closes; the status of its answer, 0 for none, and the seconds."""
    received, started = b"", time.monotonic()
    deadline = started + timeout_s
    with socket.create_connection((HOST, server.port), timeout=0.05) as connection:
        todo = list(pieces)
        while time.monotonic() < deadline:
            try:
                if todo:
                    connection.sendall(todo.pop(0))
                piece = connection.recv(65_536)
                if not piece:
                    break
                received += piece
            except TimeoutError:
                continue
            except OSError:
                break
    return _parse(received).status if received else 0, time.monotonic() - started


def hold_connections(server: Server, n: int, limit_s: float) -> Row:
    """More connections than are allowed, all silent: others are told so, and are served again when those are ended."""
    held = []
    for _ in range(n):
        try:
            held.append(socket.create_connection((HOST, server.port), timeout=1))
        except OSError:
            break
    request = make_request(server, "GET", "/v1/items/0001")
    during = talk(server, request)
    failures = [f"while all were held: {fault}"] if (fault := find_fault(server, during)) else []
    deadline = time.monotonic() + limit_s + 5
    while (after := talk(server, request)).status != 200 and time.monotonic() < deadline:
        time.sleep(0.1)
    if after.status != 200:
        failures.append(f"afterwards: {after.status}")
    for connection in held:
        connection.close()
    return Row("all connections held", n, {"closed": n} if not failures else {}, failures)


def upload_too_much(server: Server, limit: int) -> Row:
    """Bodies that are larger than is allowed, by their header, without one, and without an end."""
    head = make_request(
        server, "POST", "/v1/recommendations", Content_Type="application/octet-stream", Content_Length=str(limit + 1)
    )
    chunked = make_request(
        server, "POST", "/v1/recommendations", Content_Type="application/octet-stream", Transfer_Encoding="chunked"
    )
    piece = b"10000\r\n" + b"\0" * 65_536 + b"\r\n"
    huge = head.replace(str(limit + 1).encode(), b"9" * 18)
    tries = {
        "declared": (head, b"\0" * (limit + 1)),
        "chunked": (chunked, *[piece] * (limit // 65_536 + 3)),
        "an exabyte": (huge, b"\0" * 65_536),
        "json": (post_json(server, "/v1/embeddings", b'{"features":[' + b"1," * (limit // 2) + b"1]}"),),
    }
    ended: Counter[str] = Counter()
    failures = []
    with ThreadPoolExecutor(len(tries)) as threads:
        replies = threads.map(lambda pieces: talk(server, *pieces, timeout_s=20), tries.values())
    for name, reply in zip(tries, replies, strict=True):
        fault = find_fault(server, reply) or ("" if reply.status in (0, 413) else f"answered with {reply.status}")
        failures += [f"{name}: {fault}"] if fault else []
        ended[str(reply.status or "closed")] += not fault
    return Row("uploads that are too large", len(tries), dict(ended), failures)


def attack_all(server: Server, *, n_flipped: int, seed: int = 0) -> list[Row]:
    """Every kind of hostile request that takes no time."""
    rows = [
        attack(server, "paths out of the service", walk_paths(server), FINE - {206}),
        attack(server, "methods", use_methods(server)),
        attack(server, "Host headers", forge_hosts(server), {400}),
        attack(server, "origins of other pages", forge_origins(server), {400, 403}),
        attack(server, "ranges", ask_ranges(server), {200, 206, 416}),
        attack(server, "heads, lengths and chunks", send_odd_heads(server)),
        attack(server, "JSON bombs", send_json_bombs(server)),
        attack(server, "forms", send_forms(server), {400, 422, 429}),
        attack(server, "damaged requests", flip_requests(server, n_flipped, seed), patience_s=0.2),
    ]
    if server.key:
        rows.append(attack(server, "keys", guess_keys(server), {400, 401, 404, 405, 307}))
    return rows
