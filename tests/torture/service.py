"""The part `service`: hostile requests, load and restarts against a real `kedro serve`.

python tests/torture/service.py --minutes 60       # the soak alone: half of the capacity, memory over time
"""

from __future__ import annotations

import argparse
import asyncio
import http.client
import json
import random
import sys
import tempfile
import threading
import time
from collections import Counter
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING, Any

sys.path.insert(0, str(Path(__file__).parent))
from attacks import LEAKS, Server, attack_all, be_slow, hold_connections, upload_too_much
from row import Row
from serve_process import ServeProcess, find_port, make_collection

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from vmnet_pipeline.types import CollectionPlaces

KEY = "open-sesame-8f3a1c"
LIMIT_S = 1.0
STRICT = (f"head_timeout_s={LIMIT_S}", "max_connections=60", "max_upload_mb=2", "max_json_mb=2", "max_waiting=3")
BOMB = b'{"features":[' + b"[]," * 5_500_000 + b"0]}"
"""A JSON body of nearly 16 MiB that is some hundred times as large once it is parsed."""
SURE_S = 0.5
"""A request that was sent so long before the signal was surely accepted."""
MAX_GROWTH_MB = 10.0
"""Between the second quarter of a soak and its last one."""
MAX_REFUSED_SHARE = 0.01
"""Of the requests of a soak."""


def run(folder: Path, *, long: bool, seeds: int | None) -> list[Row]:
    """Attacks, a soak and restarts; `seeds` is how often the service is restarted."""
    places = make_collection(folder)
    rows = attack_service(folder, places, n_flipped=3000 if long else 60)
    rows += load_service(
        folder, places, soak_s=300.0 if long else 10.0, n_restarts=seeds or (10 if long else 1), seed=0
    )
    return rows


def attack_service(folder: Path, places: CollectionPlaces, *, n_flipped: int) -> list[Row]:
    """Every kind of attack on a service with a key and tight limits."""
    with ServeProcess(folder, places, port=find_port(), key=KEY, settings=STRICT) as process:
        server = Server(process.port, KEY, (KEY.encode(), str(folder).encode()))
        before = process.read_memory()[0]
        rows = attack_all(server, n_flipped=n_flipped)
        rows += [be_slow(server, LIMIT_S), hold_connections(server, 100, LIMIT_S), upload_too_much(server, 2 << 20)]
        grown = process.read_memory()[0] - before
        failures = [] if grown < 150 else [f"the service has grown by {grown:.0f} MB"]
        rows.append(Row("memory after all attacks", 1, {"below 150 MB more": 1 - len(failures)}, failures))
        process.end()
        rows.append(search_log(process))
    return rows


def search_log(process: ServeProcess) -> Row:
    """Nothing in the log tells a path, a traceback or the key."""
    lines = process.log.read_bytes().splitlines()
    bad = [line for line in lines if LEAKS.search(line) or KEY.encode() in line]
    return Row(
        "lines of the log",
        len(lines),
        {"clean": len(lines) - len(bad)},
        [line.decode(errors="replace")[:300] for line in bad[:5]],
    )


def load_service(folder: Path, places: CollectionPlaces, *, soak_s: float, n_restarts: int, seed: int) -> list[Row]:
    """Half of the capacity for a while, large JSON bodies beside searches, and restarts under load."""
    with ServeProcess(folder, places, port=find_port()) as process:
        client = Load(process, places)
        rows = [client.soak(soak_s), client.drop_bombs(4)]
        rows += [ask_as_described(process.port, client.ids)] if soak_s > 60 else []  # else a test does it
        rows.append(restart(process, places, n_restarts, seed))
        process.end()
        left = [path.name for path in process.temporary.glob("vmnet-uploads-*")]
        rows.append(Row("uploads left behind", 1, {"none": int(not left)}, left))
    return rows


class Load:
    """Searches, uploads, media and wrong requests in the proportions of a service in use."""

    def __init__(self, process: ServeProcess, places: CollectionPlaces) -> None:
        import pandas as pd

        manifest = pd.read_parquet(places.manifest)
        self.ids = list(manifest["id"])
        self.sound = Path(manifest["audio_path"].iloc[0]).read_bytes()
        self._process = process

    def soak(self, seconds: float) -> Row:
        """Half of the measured capacity; memory may grow at first and not later."""
        from serve import ask_steadily, upload_at_once

        port = self._process.port
        asyncio.run(ask_steadily(port, self.ids, 50, 1))
        asyncio.run(upload_at_once(port, 2, self.sound))
        rate, statuses, memory = self._find_capacity() / 2, Counter(), []
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            found = asyncio.run(self._mix(rate))
            statuses.update(found)
            memory.append(sum(self._process.read_memory()))
        grown = median(memory[-max(1, len(memory) // 4) :]) - median(
            memory[len(memory) // 4 : max(1, len(memory) // 2)] or memory[:1]
        )
        failures = [
            f"status {status} {count} times"
            for status, count in statuses.items()
            if status not in ("200", "404", "429", "206", "503")
        ]
        # A machine that stands still for a second makes more requests wait than connections are allowed.
        n_refused, n_overloaded = statuses["503"], self._process.count_overloaded()
        if n_refused > min(n_overloaded, MAX_REFUSED_SHARE * statuses.total()):
            failures.append(f"status 503 {n_refused} times, of {n_overloaded} connections too many")
        failures += [f"memory has grown by {grown:.1f} MB"] if grown > MAX_GROWTH_MB else []
        minutes = f"{seconds / 60:.1f} min at {rate:.0f}/s, {memory[0]:.0f} to {memory[-1]:.0f} MB"
        return Row(f"soak, {minutes}", sum(statuses.values()), dict(statuses), failures)

    def _find_capacity(self) -> float:
        """Searches by id per second that eight clients get who ask one after the other."""
        from serve import Connection

        async def ask(number: int, end: float) -> int:
            connection, n_done = Connection(self._process.port), 0
            while time.monotonic() < end:
                body = json.dumps({"id": self.ids[n_done % len(self.ids)]}).encode()
                await connection.request("POST /v1/recommendations HTTP/1.1\r\nContent-Type: application/json", body)
                n_done += 1
            connection.close()
            return n_done

        async def ask_all() -> float:
            counts = await asyncio.gather(*(ask(number, time.monotonic() + 2) for number in range(8)))
            return sum(counts) / 2

        return asyncio.run(ask_all())

    async def _mix(self, rate: float) -> Counter[str]:
        """Searches at a steady rate for some seconds, and beside them an upload, media, the map, a wrong id."""
        from serve import Connection, ask_steadily

        async def ask_others() -> list[int]:
            connection = Connection(self._process.port)
            heads = [("POST /v1/recommendations?query=music HTTP/1.1\r\nContent-Type: application/octet-stream",
                self.sound),
                     ("GET /v1/items/0001/media?side=video HTTP/1.1\r\nRange: bytes=0-999", b""),
                         ("GET /v1/map HTTP/1.1", b""),
                     ("GET /v1/items/nobody HTTP/1.1", b""), ("GET /metrics HTTP/1.1", b""), ("GET / HTTP/1.1",
                         b"")]  # fmt: skip
            found = [(await connection.request(head, body))[0] for head, body in heads]
            connection.close()
            return found

        steady, others = await asyncio.gather(ask_steadily(self._process.port, self.ids, rate, 2), ask_others())
        return Counter({str(status): n for status, n in steady["statuses"].items()}) + Counter(map(str, others))

    def drop_bombs(self, n: int) -> Row:
        """Searches while JSON bodies of the largest size are parsed; none may wait for long, and memory comes back."""
        from serve import ask_steadily

        async def both() -> tuple[dict[str, Any], list[int]]:
            async def bomb() -> int:
                return await asyncio.to_thread(_post, self._process.port, BOMB)

            steady, *statuses = await asyncio.gather(
                ask_steadily(self._process.port, self.ids, 20, 8), *(bomb() for _ in range(n))
            )
            return steady, statuses

        before = self._process.read_memory()[0]
        steady, statuses = asyncio.run(both())
        grown = self._process.read_memory()[0] - before
        ended = Counter(map(str, statuses))
        failures = [f"status {status}" for status in statuses if status not in (422, 429)]
        failures += [f"a search waited {steady['p100_ms']:.0f} ms"] if steady["p100_ms"] > 4000 else []
        failures += [f"searches were answered with {steady['statuses']}"] if set(steady["statuses"]) != {200} else []
        failures += [f"memory has grown by {grown:.0f} MB"] if grown > 200 else []
        return Row(f"JSON of 16 MiB, searches wait {steady['p100_ms']:.0f} ms at most", n, dict(ended), failures)


def ask_as_described(port: int, ids: list[str]) -> Row:
    """Every operation of the service's description, asked by schemathesis in valid and wrong ways."""
    import schemathesis
    from openapi_requests import check_operation

    base_url, ended, failures = f"http://127.0.0.1:{port}", Counter(), []
    schema = schemathesis.openapi.from_url(f"{base_url}/openapi.json")
    for operation in (result.ok() for result in schema.get_all_operations()):
        for mode in (schemathesis.GenerationMode.POSITIVE, schemathesis.GenerationMode.NEGATIVE):
            try:
                ended.update(map(str, check_operation(operation, mode, base_url, 150, ids)))
            except Exception as error:
                failures.append(f"{operation.label}: {' '.join(str(error).split())[:300]}")
    return Row("schemathesis", sum(ended.values()) + len(failures), dict(ended), failures)


def _post(port: int, body: bytes) -> int:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=120)
    try:
        connection.request("POST", "/v1/embeddings", body, {"Content-Type": "application/json"})
        return connection.getresponse().status
    finally:
        connection.close()


# --- restarts


def restart(process: ServeProcess, places: CollectionPlaces, n: int, seed: int) -> Row:
    """End the service with SIGTERM while it is asked from many sides, start it again; nothing accepted may be lost."""
    load, chance = Load(process, places), random.Random(seed)
    ended: Counter[str] = Counter()
    failures: list[str] = []
    for number in range(n):
        asked = Asked(process.port, load)
        with asked.running():
            time.sleep(1.5 + 2 * chance.random())
            signalled = time.monotonic()
            code = process.end()
            process.start()
            time.sleep(1.0)
        found = [judge(request, signalled) for request in asked.requests]
        ended.update(kind for kind, _ in found if kind)
        failures += [f"restart {number}: {text}" for _, text in found if text]
        failures += [] if code in (0, -15) else [f"restart {number}: exit code {code}"]
    return Row(f"requests during {n} restarts", sum(ended.values()) + len(failures), dict(ended), failures)


class Asked:
    """Clients in threads, each on a new connection for every request; what they sent when, and what came back."""

    def __init__(self, port: int, load: Load) -> None:
        self._port, self._load = port, load
        self._stop = threading.Event()
        self.requests: list[tuple[str, float, str]] = []

    def running(self) -> Any:
        from contextlib import contextmanager

        @contextmanager
        def run_threads() -> Iterator[None]:
            kinds: list[Callable[[http.client.HTTPConnection], None]] = (
                [self._search] * 4 + [self._upload] * 3 + [self._upload_slowly] * 2
            )
            threads = [threading.Thread(daemon=True, target=self._ask, args=(kind,)) for kind in kinds]
            for thread in threads:
                thread.start()
            try:
                yield
            finally:
                self._stop.set()
                for thread in threads:
                    thread.join()

        return run_threads()

    def _ask(self, send: Callable[[http.client.HTTPConnection], None]) -> None:
        while not self._stop.is_set():
            connection = http.client.HTTPConnection("127.0.0.1", self._port, timeout=60)
            try:
                connection.connect()
            except OSError:
                self.requests.append((send.__name__, 0.0, "not connected"))
                time.sleep(0.05)
                continue
            started = time.monotonic()
            self.requests.append((send.__name__, started, self._finish(connection, send)))

    def _finish(
        self, connection: http.client.HTTPConnection, send: Callable[[http.client.HTTPConnection], None]
    ) -> str:
        try:
            send(connection)
            answer = connection.getresponse()
        except (http.client.RemoteDisconnected, ConnectionError):
            return "closed"
        except (OSError, http.client.HTTPException) as error:
            return f"broken: {type(error).__name__}"
        try:
            json.loads(answer.read())
        except (OSError, http.client.HTTPException, ValueError) as error:
            return f"broken: {type(error).__name__} after status {answer.status}"
        finally:
            connection.close()
        return str(answer.status)

    def _search(self, connection: http.client.HTTPConnection) -> None:
        connection.request("POST", "/v1/recommendations", b'{"id": "0001"}', {"Content-Type": "application/json"})

    def _upload(self, connection: http.client.HTTPConnection) -> None:
        connection.request(
            "POST", "/v1/embeddings?query=music", self._load.sound, {"Content-Type": "application/octet-stream"}
        )

    def _upload_slowly(self, connection: http.client.HTTPConnection) -> None:
        """A body that takes a second, so that the signal comes while it arrives."""
        step = max(1, len(self._load.sound) // 10)
        pieces = [self._load.sound[start : start + step] for start in range(0, len(self._load.sound), step)]
        connection.putrequest("POST", "/v1/embeddings?query=music")
        connection.putheader("Content-Type", "application/octet-stream")
        connection.putheader("Content-Length", str(len(self._load.sound)))
        connection.endheaders()
        for piece in pieces:
            connection.send(piece)
            time.sleep(0.1)


def judge(request: tuple[str, float, str], signalled: float) -> tuple[str, str]:
    """The kind of end of a request, or what is wrong with it."""
    kind, started, end = request
    if end in ("200", "429", "503"):
        return ("answered" if end == "200" else f"refused with {end}"), ""
    if end == "not connected":
        return "not connected", ""
    if end == "closed" and started > signalled - SURE_S:
        return "closed before it was accepted", ""
    return "", f"{kind} sent {signalled - started:.2f} s before the signal: {end}"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=60.0)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="soak-") as name:
        places = make_collection(Path(name))
        with ServeProcess(Path(name), places, port=find_port()) as process:
            row = Load(process, places).soak(60 * arguments.minutes)
    print(row)
    return 1 if row.failures else 0


if __name__ == "__main__":
    sys.exit(main())
