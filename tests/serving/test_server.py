"""What one client can cost all others: pieces of one byte, answers that are never read, connections that are held."""

import itertools
import threading
import time

import httpx
import pytest
from live_server import connect, get, read_all, run_with, talk

from vmnet_pipeline.serving import server as module

UPLOAD = (
    b"POST /v1/embeddings HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: application/octet-stream\r\n"
    b"Transfer-Encoding: chunked\r\n\r\n"
)
CHUNK = b"1\r\nx\r\n"


class Transport:
    """A transport that keeps what is written, and says whether it is to be read."""

    def __init__(self):
        self.written, self.is_reading, self.is_closed = b"", True, False

    def get_extra_info(self, name):
        return None

    def pause_reading(self):
        self.is_reading = False

    def resume_reading(self):
        self.is_reading = True

    def is_closing(self):
        return self.is_closed

    def close(self):
        self.is_closed = True

    def write(self, data):
        self.written += data

    def get_write_buffer_size(self):
        return 0


@pytest.fixture
def connection(service):
    """A connection whose turns are given by the test, and what waits for a turn."""
    import asyncio

    from uvicorn.server import ServerState

    async def application(scope, receive, send):
        pass  # its turn never comes

    class Pacer:
        def __init__(self):
            self.turns = []

        def submit(self, turn):
            self.turns.append(turn)

    loop, pacer = asyncio.new_event_loop(), Pacer()
    config = module.configure_server(application, service, "127.0.0.1", 0)
    config.load()
    made = module.BoundedConnection(
        config, ServerState(), {}, loop, params=service.params, metrics=service.metrics, pacer=pacer
    )
    transport = Transport()
    loop.call_soon(made.connection_made, transport)
    loop.run_until_complete(asyncio.sleep(0))
    yield made, transport, pacer.turns
    loop.run_until_complete(asyncio.sleep(0))
    loop.close()


def test_pieces_of_one_byte_are_parsed_in_turns(connection, monkeypatch):
    """However much comes at once, one turn takes one slice here, and nothing more is read before the rest is parsed."""
    made, transport, turns = connection
    monkeypatch.setattr(module, "TURN_S", -1.0)
    made.data_received(UPLOAD + CHUNK * 40_000)
    sizes = [len(made.cycle.body)]
    assert not transport.is_reading
    while turns:
        turns.pop()()
        sizes.append(len(made.cycle.body))
    assert sizes[-1] == 40_000
    assert max(after - before for before, after in itertools.pairwise(sizes)) <= module.SLICE_BYTES / len(CHUNK) + 1
    assert transport.is_reading


def test_a_body_that_is_not_taken_is_not_parsed(connection):
    made, transport, turns = connection
    made.data_received(UPLOAD + (b"10000\r\n" + b"x" * 65_536 + b"\r\n") * 50)
    while turns:
        turns.pop()()
    assert len(made.cycle.body) <= 2 * 65_536
    assert not transport.is_reading


@pytest.mark.parametrize(
    ("head", "status"),
    [
        (get("/healthz", *[f"a{n}: b" for n in range(300)]), 400),
        (get("/healthz", "a: " + "b" * 70_000), 400),
        (get("/healthz", "Host: 127.0.0.1"), 400),
        (get("/healthz").replace(b"HTTP/1.1", b"HTTP/2.0"), 400),
        (get("/healthz").replace(b"GET", b"FOO"), 405),
        (b"\r\n" * 40_000, 400),
        (UPLOAD + CHUNK + b"1;" + b"a" * 80_000, 400),
        (UPLOAD + b"0\r\n" + b"a: b\r\n" * 20_000, 400),
        (UPLOAD + b"0\r\na: " + b"b" * 80_000, 400),
    ],
)
def test_heads_and_what_holds_no_content_is_bounded(service, live, head, status):
    with run_with(service, head_timeout_s=2.0) as port:
        answer = talk(port, head)
    assert b" %d " % status in answer.partition(b"\r\n")[0], answer[:200]
    assert b'{"error":' in answer.replace(b": ", b":").replace(b'"error":', b'"error":')


def test_searches_go_on_beside_uploads_of_one_byte_a_chunk(service, live):
    """Without turns a search waits for ten seconds and more."""
    ending = threading.Event()

    def flood(port):
        while not ending.is_set():
            with connect(port) as connection:
                connection.settimeout(0.5)
                try:
                    connection.sendall(UPLOAD)
                    while not ending.is_set():
                        connection.send(CHUNK * 10_000)
                except OSError:
                    continue

    with run_with(service) as port:
        threads = [threading.Thread(daemon=True, target=flood, args=(port,)) for _ in range(4)]
        for thread in threads:
            thread.start()
        try:
            with httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=60) as client:
                began = time.monotonic()
                answers = [client.post("/v1/recommendations", json={"id": "0001"}) for _ in range(20)]
                seconds = time.monotonic() - began
        finally:
            ending.set()
            for thread in threads:
                thread.join()
    assert {answer.status_code for answer in answers} == {200}
    assert seconds / len(answers) < 1.0


# --- answers that nobody reads


def wait_for(condition, seconds=30):
    ends = time.monotonic() + seconds
    while not condition() and time.monotonic() < ends:
        time.sleep(0.05)
    return condition()


@pytest.mark.parametrize("what", ["/v1/items/0001/media?side=video", "/v1/map", "/main.js"])
def test_who_never_reads_is_cut_off(service, live, what):
    """Answers that are finished, and answers that are under way; the service has room again."""
    cut = service.metrics.refused.labels("slow_reader")._value
    before = cut.get()
    with run_with(service, write_timeout_s=0.5, max_connections=6) as port:
        held = [connect(port, receive_buffer=4096) for _ in range(6)]
        for connection in held:
            connection.settimeout(0.3)
            try:
                for _ in range(500):
                    connection.sendall(get(what) * 20)
            except OSError:
                pass
        assert wait_for(lambda: cut.get() >= before + 6), cut.get() - before
        assert httpx.get(f"http://127.0.0.1:{port}/v1/items/0001").status_code == 200
        for connection in held:
            connection.close()


def test_who_reads_slowly_but_reads_gets_everything(service, live, manifest):
    whole = len(open(manifest.loc["0001", "video_path"], "rb").read())  # noqa: PTH123, SIM115
    with run_with(service, write_timeout_s=1.0) as port, connect(port, receive_buffer=4096) as connection:
        n = 30
        connection.sendall(get("/v1/items/0001/media?side=video") * (n - 1))
        connection.sendall(get("/v1/items/0001/media?side=video", "Connection: close"))
        received = 0
        while piece := connection.recv(60_000):
            received += len(piece)
            time.sleep(0.01)
    assert received > n * whole


def test_a_request_that_is_over_its_time_is_cut_off_with_its_connection(service, live):
    limits = {"media_timeout_s": 0.5, "write_timeout_s": 600.0}
    with run_with(service, **limits) as port, connect(port, receive_buffer=4096) as connection:
        connection.settimeout(0.3)
        try:
            for _ in range(300):
                connection.sendall(get("/v1/items/0001/media?side=video") * 20)
        except OSError:
            pass
        time.sleep(0.7)
        connection.settimeout(20)
        assert len(read_all(connection)) > 0  # to its end: a connection that stayed open would time out


# --- connections that are held


def test_health_is_answered_whatever_is_held(service, live):
    with run_with(service, max_connections=4, head_timeout_s=60.0) as port:
        held = [connect(port) for _ in range(40)]
        for _ in range(3):
            for path, status in (("/healthz", b"200"), ("/readyz", b"200"), ("/v1/map", b"503")):
                answer = talk(port, get(path))
                assert answer.split()[1] == status, (path, answer[:100])
                assert b"connection: close" in answer.lower()
        for connection in held:
            connection.close()
        assert wait_for(lambda: talk(port, get("/v1/items/0001", "Connection: close")).split()[1] == b"200")
