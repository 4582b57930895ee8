"""Servers that are slow, broken or hostile: bounded, never packed, and no beginning that is not the file's."""

from __future__ import annotations

import contextlib
import gzip
import hashlib
import http.server
import threading
import time

import pytest

from vmnet_pipeline.backends import download
from vmnet_pipeline.backends.checksums import FileCheck
from vmnet_pipeline.backends.download import download_file
from vmnet_pipeline.errors import WeightsError

CONTENT = bytes(range(256)) * 1000
CHECK = FileCheck(size=len(CONTENT), sha256=hashlib.sha256(CONTENT).hexdigest())
UNKNOWN = FileCheck()
TIMEOUT_S = (5.0, 5.0)


class Handler(http.server.BaseHTTPRequestHandler):
    """Answers as the test says; `asked` are the headers of each request."""

    answer = None
    asked = None

    def do_GET(self):
        Handler.asked.append(dict(self.headers))
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):
            type(self).answer(self)

    def log_message(self, *_):
        pass

    def begin(self, status=200, **headers):
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name.replace("_", "-"), str(value))
        self.end_headers()

    def send_file(self, content=CONTENT, etag='"1"', n_sent=None):
        self.begin(Content_Length=len(content), ETag=etag)
        self.wfile.write(content[:n_sent])


@pytest.fixture
def url():
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(daemon=True, target=server.serve_forever, args=(0.01,))
    thread.start()
    Handler.asked = []
    yield f"http://127.0.0.1:{server.server_port}/a.bin"
    server.shutdown()
    server.server_close()
    thread.join()


def serve(monkeypatch, *answers):
    """One answer after the other, the last one again and again."""
    left = list(answers)

    def answer(handler):
        (left.pop(0) if len(left) > 1 else left[0])(handler)

    monkeypatch.setattr(Handler, "answer", answer)


def list_files(folder):
    return {path.name: path.stat().st_size for path in folder.iterdir()}


def continue_at(handler, etag='"1"', shift=0):
    start = int(handler.headers["Range"][6:-1]) + shift
    size = len(CONTENT)
    handler.begin(206, Content_Length=size - start, Content_Range=f"bytes {start}-{size - 1}/{size}", ETag=etag)
    handler.wfile.write(CONTENT[start:])


def send_endlessly(handler):
    handler.begin(ETag='"1"')
    while True:
        handler.wfile.write(bytes(1 << 16))


def send_chunks_endlessly(handler):
    handler.protocol_version = "HTTP/1.1"
    handler.begin(Transfer_Encoding="chunked")
    while True:
        handler.wfile.write(b"10000\r\n" + bytes(1 << 16) + b"\r\n")


@pytest.mark.parametrize("answer", [send_endlessly, send_chunks_endlessly])
@pytest.mark.parametrize("check", [CHECK, UNKNOWN])
def test_a_server_that_sends_without_end_is_left(monkeypatch, tmp_path, url, answer, check):
    monkeypatch.setattr(download, "MAX_BYTES", 500_000)
    serve(monkeypatch, answer)
    most, wrote = [0], download._receive

    def watch(response, partial, *rest):
        try:
            wrote(response, partial, *rest)
        finally:
            most[0] = max(most[0], partial.stat().st_size if partial.exists() else 0)

    monkeypatch.setattr(download, "_receive", watch)
    with pytest.raises(OSError, match=f"more than the {check.size or 500_000} bytes"):
        download_file(url, tmp_path / "a.bin", check, TIMEOUT_S)
    assert list_files(tmp_path) == {}


def test_not_a_byte_more_than_the_published_size_is_written(monkeypatch, tmp_path, url):
    """Seen by a disk on which there is just that much room."""
    import resource
    import signal

    serve(monkeypatch, send_endlessly)
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (len(CONTENT), limits[1]))
    try:
        with pytest.raises(OSError, match="more than the"):
            download_file(url, tmp_path / "a.bin", CHECK, TIMEOUT_S)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        signal.signal(signal.SIGXFSZ, handler)


@pytest.mark.parametrize("encoding", ["gzip", "deflate", "br", "zstd", "gzip, identity", "GZIP"])
def test_a_packed_answer_is_refused_before_it_is_unpacked(monkeypatch, tmp_path, url, encoding):
    bomb = gzip.compress(bytes(30 << 20))
    serve(monkeypatch, lambda handler: handler.begin(Content_Length=len(bomb), Content_Encoding=encoding)
          or handler.wfile.write(bomb))  # fmt: skip
    with pytest.raises(OSError, match=r"packed \((gzip|deflate|br|zstd)"):
        download_file(url, tmp_path / "a.bin", UNKNOWN, TIMEOUT_S)
    assert Handler.asked[0]["Accept-Encoding"] == "identity"
    assert list_files(tmp_path) == {}


@pytest.mark.parametrize("check", [CHECK, UNKNOWN])
def test_another_size_is_refused_before_anything_is_written(monkeypatch, tmp_path, url, check):
    monkeypatch.setattr(download, "MAX_BYTES", 1 << 20)
    serve(monkeypatch, lambda handler: handler.begin(Content_Length=1 << 40))
    with pytest.raises(OSError, match=f"offers {1 << 40} bytes"):
        download_file(url, tmp_path / "a.bin", check, TIMEOUT_S)
    assert list_files(tmp_path) == {}


def break_off(monkeypatch, tmp_path, url, check, etag='"1"'):
    serve(monkeypatch, lambda handler: handler.send_file(etag=etag, n_sent=100_000))
    with pytest.raises(OSError, match=r"100000 of 256000|100000 bytes read"):
        download_file(url, tmp_path / "a.bin", check, TIMEOUT_S)
    Handler.asked.clear()


@pytest.mark.parametrize("check", [CHECK, UNKNOWN])
def test_what_came_is_continued(monkeypatch, tmp_path, url, check):
    break_off(monkeypatch, tmp_path, url, check)
    assert list_files(tmp_path)["a.bin.part"] == 100_000
    serve(monkeypatch, continue_at)
    download_file(url, tmp_path / "a.bin", check, TIMEOUT_S)
    assert (tmp_path / "a.bin").read_bytes() == CONTENT
    assert [asked.get("Range") for asked in Handler.asked] == ["bytes=100000-"]
    assert Handler.asked[0]["If-Range"] == '"1"'
    assert set(list_files(tmp_path)) == {"a.bin", "a.bin.verified.json"}


ANEW = {
    "the server has another version": (lambda h: h.send_file(etag='"2"'),),
    "another version continues": (lambda h: continue_at(h, etag='"2"'), lambda h: h.send_file(etag='"2"')),
    "another range": (lambda h: continue_at(h, shift=5), Handler.send_file),
    "an earlier range": (lambda h: continue_at(h, shift=-5), Handler.send_file),
    "no range named": (lambda h: h.begin(206, Content_Length=3) or h.wfile.write(b"abc"), Handler.send_file),
    "nothing is left": (lambda h: h.begin(416, Content_Length=0), Handler.send_file),
}


@pytest.mark.parametrize("name", ANEW)
@pytest.mark.parametrize("check", [CHECK, UNKNOWN])
def test_what_came_is_left_where_the_server_does_not_continue_it(monkeypatch, tmp_path, url, name, check):
    break_off(monkeypatch, tmp_path, url, check)
    serve(monkeypatch, *ANEW[name])
    download_file(url, tmp_path / "a.bin", check, TIMEOUT_S)
    assert (tmp_path / "a.bin").read_bytes() == CONTENT
    assert len(Handler.asked) == len(ANEW[name])


def test_a_beginning_that_was_wrong_is_fetched_again_at_once(monkeypatch, tmp_path, url):
    break_off(monkeypatch, tmp_path, url, CHECK)
    (tmp_path / "a.bin.part").write_bytes(b"x" * 100_000)
    serve(monkeypatch, continue_at, Handler.send_file)
    download_file(url, tmp_path / "a.bin", CHECK, TIMEOUT_S)
    assert (tmp_path / "a.bin").read_bytes() == CONTENT


@pytest.mark.parametrize(
    "damage", ["no record", "another address", "no mark", "weak mark", "damaged record", "too long"]
)
def test_without_a_checksum_only_what_is_known_to_fit_is_continued(monkeypatch, tmp_path, url, damage):
    etag = {"no mark": "", "weak mark": 'W/"1"'}.get(damage, '"1"')
    break_off(monkeypatch, tmp_path, url, UNKNOWN, etag=etag)
    record, part = tmp_path / "a.bin.part.json", tmp_path / "a.bin.part"
    if damage == "no record":
        record.unlink()
    elif damage == "another address":
        record.write_text(record.read_text().replace("/a.bin", "/b.bin"))
    elif damage == "damaged record":
        record.write_text('{"url": 1, "version": [], "total": {}}')
    elif damage == "too long":
        monkeypatch.setattr(download, "MAX_BYTES", 256_000)
        part.write_bytes(bytes(300_000))
    serve(monkeypatch, Handler.send_file)
    download_file(url, tmp_path / "a.bin", UNKNOWN, TIMEOUT_S)
    assert (tmp_path / "a.bin").read_bytes() == CONTENT
    assert [asked.get("Range") for asked in Handler.asked] == [None]


def test_a_file_that_is_another_one_is_thrown_away(monkeypatch, tmp_path, url):
    serve(monkeypatch, lambda handler: handler.send_file(bytes(len(CONTENT))))
    with pytest.raises(WeightsError, match="sha256"):
        download_file(url, tmp_path / "a.bin", CHECK, TIMEOUT_S)
    assert list_files(tmp_path) == {}
    assert len(Handler.asked) == 1


def test_a_loop_of_redirects_ends(monkeypatch, tmp_path, url):
    serve(monkeypatch, lambda handler: handler.begin(302, Location="/again", Content_Length=0))
    with pytest.raises(OSError, match="redirects"):
        download_file(url, tmp_path / "a.bin", CHECK, TIMEOUT_S)
    assert len(Handler.asked) <= 6


@pytest.mark.parametrize("place", ["file:///etc/passwd", "ftp://127.0.0.1/a"])
def test_a_redirect_to_something_else_than_the_web_is_refused(monkeypatch, tmp_path, url, place):
    serve(monkeypatch, lambda handler: handler.begin(302, Location=place, Content_Length=0))
    with pytest.raises(OSError, match="No connection adapters"):
        download_file(url, tmp_path / "a.bin", UNKNOWN, TIMEOUT_S)
    assert list_files(tmp_path) == {}


@pytest.mark.parametrize("status", [204, 206, 301, 304, 404, 500])
def test_an_answer_without_a_file_is_refused(monkeypatch, tmp_path, url, status):
    serve(monkeypatch, lambda handler: handler.begin(status, Content_Length=0))
    with pytest.raises(OSError, match=str(status)):
        download_file(url, tmp_path / "a.bin", UNKNOWN, TIMEOUT_S)
    assert list_files(tmp_path) == {}


def drip(handler):
    handler.begin(Content_Length=len(CONTENT), ETag='"1"')
    while True:
        handler.wfile.write(b"x")
        handler.wfile.flush()
        time.sleep(0.02)


def drip_the_head(handler):
    handler.wfile.write(b"HTTP/1.0 200 OK\r\nX-Slow: ")
    while True:
        handler.wfile.write(b"x")
        handler.wfile.flush()
        time.sleep(0.02)


def begin_chunks(handler, first):
    handler.wfile.write(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n" + first)


def drip_the_head_of_a_chunk(handler):
    begin_chunks(handler, b"5;")
    while True:
        handler.wfile.write(b"x")
        time.sleep(0.02)


def send_trailers_endlessly(handler):
    begin_chunks(handler, b"1\r\nx\r\n0\r\n")
    while True:
        handler.wfile.write(b"X-More: more\r\n" * 1000)


def drip_chunks(handler):
    begin_chunks(handler, b"")
    while True:
        handler.wfile.write(b"1\r\nx\r\n")
        time.sleep(0.02)


@pytest.mark.parametrize(
    ("answer", "told"),
    [
        (drip_the_head, "no answer within"),
        *((send, "bytes came in") for send in (drip, drip_chunks, drip_the_head_of_a_chunk, send_trailers_endlessly)),
    ],
)
def test_a_server_that_drips_is_left(monkeypatch, tmp_path, url, answer, told):
    monkeypatch.setattr(download, "SLOW_WINDOW_S", 0.5)
    monkeypatch.setattr(download, "ANSWER_WAIT_S", 0.5)
    serve(monkeypatch, answer)
    started = time.monotonic()
    with pytest.raises(OSError, match=told):
        download_file(url, tmp_path / "a.bin", CHECK, TIMEOUT_S)
    assert time.monotonic() - started < 20
