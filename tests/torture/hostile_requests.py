"""Requests that no client library would send, as bytes."""

from __future__ import annotations

import json
import random
from dataclasses import dataclass
from typing import TYPE_CHECKING

from fuzzing import mutate

if TYPE_CHECKING:
    from collections.abc import Iterator

HOST = "127.0.0.1"


@dataclass(frozen=True, slots=True)
class Server:
    """Where the service is, and what it may not tell.

    Attributes:
        port: Its port on the loopback.
        key: Its API key; empty: none.
        secrets: Words that no reply and no line of the log may hold.
    """

    port: int
    key: str = ""
    secrets: tuple[bytes, ...] = ()


def make_request(
    server: Server, method: str, target: str, body: bytes | None = None, *, host: str = HOST, **headers: str
) -> bytes:
    """A request with the key; `_` in the names of headers stands for `-`."""
    lines = [f"{method} {target} HTTP/1.1", f"Host: {host}"]
    lines += [f"X-API-Key: {server.key}"] if server.key and "X_API_Key" not in headers else []
    lines += [f"{name.replace('_', '-')}: {value}" for name, value in headers.items()]
    lines += [f"Content-Length: {len(body)}"] if body is not None and "Transfer_Encoding" not in headers else []
    return "\r\n".join([*lines, "", ""]).encode("latin-1") + (body or b"")


def post_json(server: Server, target: str, body: bytes) -> bytes:
    return make_request(server, "POST", target, body, Content_Type="application/json")


def walk_paths(server: Server) -> Iterator[bytes]:
    ups = (
        "../",
        "..%2f",
        "%2e%2e/",
        "%2e%2e%2f",
        "..%5c",
        "....//",
        "%252e%252e%252f",
        "%c0%ae%c0%ae/",
        "..;/",
        "..%00/",
    )
    for up in ups:
        for target in (
            f"/{up * 6}etc/passwd",
            f"/v1/items/{up * 4}etc%2fpasswd/media",
            f"/v1/items/0001/{up * 3}metrics",
            f"/main.js/{up}app.py",
        ):
            yield make_request(server, "GET", target)
    odd = (
        "/%00",
        "/main.js%00.html",
        "/v1/items/%00/media",
        "/v1/items/%ff%fe",
        "/v1/items/%ed%a0%80",
        "//etc/passwd",
        "/./././app.py",
        "/v1/items/" + "a" * 9000,
        "/" + "a/" * 4000,
        "/" + "%2e" * 5000,
        "/~root/.ssh",
        "/C:/windows/win.ini",
        "/.git/config",
        "/__pycache__",
        "/v1/items/CON/media",
        "/v1/items/%E2%80%AE",
        "/v1/items/0001/media?side=../x",
        "/v1/items/0001/media?side=%00&side=music",
        "/v1/items/-%0d%0aSet-Cookie:%20a=b",
        "/?%00",
        "/v1/map?" + "a=b&" * 5000,
        "/v1/recommendations?top_k=" + "9" * 5000,
        "/#",
        "/v1//map",
    )
    yield from (make_request(server, "GET", target) for target in odd)
    yield make_request(server, "GET", f"http://{HOST}/v1/map")
    yield make_request(server, "GET", "file:///etc/passwd")
    yield make_request(server, "GET", "*")


def use_methods(server: Server) -> Iterator[bytes]:
    for method in (
        "HEAD",
        "OPTIONS",
        "TRACE",
        "CONNECT",
        "PUT",
        "DELETE",
        "PATCH",
        "PROPFIND",
        "get",
        "X" * 300,
        "G\x01T",
    ):
        for target in (
            "/",
            "/v1/map",
            "/v1/recommendations",
            "/v1/items/0001",
            "/v1/items/0001/media",
            "/healthz",
            "/metrics",
            "/v1/session",
        ):
            yield make_request(server, method, target)


def forge_hosts(server: Server) -> Iterator[bytes]:
    for host in (
        "evil.example",
        "127.0.0.1.evil.example",
        "evil.example:80",
        "127.0.0.1@evil.example",
        "127.0.0.1:80:80",
        "",
        "[::1]",
        "2130706433",
        "localhost/../x",
        "127.0.0.1\r\nHost: evil.example",
        "a" * 5000,
        "\xff",
    ):
        yield make_request(server, "GET", "/v1/map", host=host)
    yield b"GET /v1/map HTTP/1.1\r\n\r\n"
    yield b"GET /v1/map HTTP/1.0\r\n\r\n"


def forge_origins(server: Server) -> Iterator[bytes]:
    for origin in (
        "null",
        "http://[",
        "http://evil.example",
        "https://127.0.0.1.evil.example",
        "javascript:alert(1)",
        "http://127.0.0.1@evil.example",
        "http://]:",
        "a" * 9000,
        "http://\xff",
        "//" + HOST + ":1",
    ):
        yield make_request(server, "GET", "/v1/map", Origin=origin)
        yield make_request(server, "OPTIONS", "/v1/map", Origin=origin, Access_Control_Request_Method="GET")


def ask_ranges(server: Server) -> Iterator[bytes]:
    ranges = (
        "bytes=0-0," * 5000 + "0-0",
        ",".join(f"{n}-{n}" for n in range(2000)),
        "bytes=" + ",".join(f"{2 * n}-{2 * n}" for n in range(3000)),
        "bytes=-1",
        "bytes=-99999999999999999999",
        "bytes=99999999999999999999-",
        "bytes=5-2",
        "bytes=" + "9" * 5000 + "-",
        "bytes=0-" + "9" * 5000,
        "bytes=-",
        "bytes=--1",
        "bytes=0--1",
        "bytes=1.5-2",
        "bytes=\u0661-",
        "bytes= 0 - 1 ",
        "items=0-1",
        "bytes",
        "=",
        "bytes=0-1,-1,5-",
        "bytes=0-,0-,0-,0-",
        "bytes=" + "0-," * 10_000,
        "bytes=a-b",
        "bytes=0x0-0x1",
        "bytes=1-0,0-1",
    )
    for text in ranges:
        yield make_request(
            server, "GET", "/v1/items/0001/media?side=video", Range=text.encode("utf-8").decode("latin-1")
        )


def send_odd_heads(server: Server) -> Iterator[bytes]:
    good = make_request(server, "GET", "/v1/map")
    post = make_request(server, "POST", "/v1/embeddings", Content_Type="application/json")[:-2]
    yield good[:-2] + b"".join(b"X-%d: y\r\n" % n for n in range(10_000)) + b"\r\n"
    yield good[:-2] + b"X-Long: " + b"a" * 1_000_000 + b"\r\n\r\n"
    yield from (
        good[:-2] + line + b"\r\n\r\n"
        for line in (
            b"X: a\r\n folded",
            b"X: \0",
            b": x",
            b"X y",
            b"\x80: y",
            b"X: \xff\xfe",
            b"X\t: y",
            b"Cookie: " + b"a=b;" * 9000,
        )
    )
    for length in (
        b"-1",
        b"+5",
        b"0x10",
        b"1e3",
        b"99999999999999999999",
        b"9" * 5000,
        b"5, 6",
        b"5\r\nContent-Length: 6",
        b"",
        b"\xb2",
    ):
        yield post + b"Content-Length: " + length + b"\r\n\r\n{}"
    for coding in (
        b"chunked",
        b"xchunked",
        b"gzip, chunked",
        b"identity",
        b"chunked, chunked",
        b"chunked\r\nContent-Length: 3",
    ):
        yield post + b"Transfer-Encoding: " + coding + b"\r\n\r\n2\r\n{}\r\n0\r\n\r\n"
    chunked = post + b"Transfer-Encoding: chunked\r\n\r\n"
    for chunk in (
        b"ffffffffffffffff\r\n",
        b"-1\r\n",
        b"zz\r\n",
        b"2;" + b"x" * 100_000 + b"\r\n{}\r\n",
        b"1\r\n{\r\n" * 70_000 + b"0\r\n\r\n",
        b"2\r\n{}XX0\r\n\r\n",
        b"0\r\n" + b"X: y\r\n" * 30_000 + b"\r\n",
        b"0" * 40 + b"2\r\n{}\r\n0\r\n\r\n",
    ):
        yield chunked + chunk
    yield make_request(
        server,
        "POST",
        "/v1/embeddings",
        b"\x1f\x8b\x08" + b"\0" * 60,
        Content_Type="application/json",
        Content_Encoding="gzip",
    )
    yield make_request(
        server,
        "GET",
        "/v1/map",
        Upgrade="websocket",
        Connection="Upgrade",
        Sec_WebSocket_Key="x" * 22,
        Sec_WebSocket_Version="13",
    )
    yield make_request(
        server, "GET", "/v1/map", Upgrade="h2c", Connection="Upgrade, HTTP2-Settings", HTTP2_Settings="AAA"
    )
    yield b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
    yield b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + b"\0" * 200
    yield b"GET / HTTP/9.9\r\nHost: 127.0.0.1\r\n\r\n"
    yield b"\r\n" * 40_000
    yield good + b"\0\xff garbage behind a request \r\n\r\n"
    yield good * 300


def send_json_bombs(server: Server) -> Iterator[bytes]:
    bombs = (
        b"[" * 60_000,
        b'{"a":' * 12_000,
        b'{"features":' + b"[" * 50_000,
        b'{"features":' + b"[" * 150 + b"]" * 150 + b"}",
        b'{"embedding":[' + b"9" * 5000 + b"]}",
        b'{"embedding":[NaN,NaN,NaN,NaN,NaN,NaN,NaN,NaN]}',
        b'{"embedding":[1e308,1e308,1e308,1e308,1e308,1e308,1e308,1e308]}',
        b'{"features":[NaN,Infinity]}',
        b'{"features":[' + b"9" * 400 + b"]}",
        b'{"features":[[' + b"1e39," * 1279 + b'1]],"query":"video"}',
        b'{"features":[1e400]}',
        b'{"features":["1",null,true]}',
        b'{"id":"\\ud800"}',
        b'{"id":"\\u0000"}',
        b'{"id":"' + b"a" * 60_000 + b'"}',
        b'{"id":"0001","top_k":' + b"9" * 4000 + b"}",
        b'{"id":"0001","top_k":1e5}',
        b'{"id":"0001","filters":["' + b" " * 199 + b'"]}',
        b'{"id":"0001","filters":' + json.dumps([" " * 199 + "="] * 16).encode() + b"}",
        b'{"id":"0001","filters":["duration<nan","duration>=1e999","id=\\u0000","tag=\\"","duration<1_0"]}',
        b'{"id":"0001","id":"0002"}',
        b'\xef\xbb\xbf{"id":"0001"}',
        '{"id":"0001"}'.encode("utf-16"),
        b'{"id":"\xff"}',
        b"",
        b"null",
        b"[]",
        b'"x"',
        b"0",
        b"{" + b",".join(b'"a%d":1' % n for n in range(5000)) + b"}",
        b'{"key":"\\ud800"}',
        b'{"key":' + b"[" * 5000,
        b'{"features":[],"pooled":true}',
        b'{"features":[[],[]]}',
        b'{"features":[{"a":1}]}',
        b'{"features":[[1],[1,2]]}',
    )
    for target in ("/v1/recommendations", "/v1/embeddings", "/v1/session"):
        yield from (post_json(server, target, bomb) for bomb in bombs)
    for unit in (b"[],", b"1,", b'{"a":0},'):  # of nearly all bytes that are allowed
        yield post_json(server, "/v1/embeddings", b'{"features":[' + unit * (900_000 // len(unit)) + b"0]}")
    yield post_json(server, "/v1/session", b'{"key":"' + b"a" * 5_000_000 + b'"}')


def send_forms(server: Server) -> Iterator[bytes]:
    def form(body: bytes, kind: str = "multipart/form-data; boundary=x") -> bytes:
        return make_request(server, "POST", "/v1/recommendations", body, Content_Type=kind)

    def part(head: bytes, content: bytes = b"data") -> bytes:
        return b"--x\r\n" + head + b"\r\n\r\n" + content + b"\r\n"

    named = b'Content-Disposition: form-data; name="file"'
    for head in (
        named + b'; filename="../../../etc/cron.d/x"',
        named + b'; filename="\0"',
        named + b"; filename*=utf-8''..%2f",
        b"Content-Disposition: form-data; name=file",
        b"Content-Disposition: " + b"a" * 60_000,
        b"X: y",
        b"",
        named + b"\r\nContent-Transfer-Encoding: base64",
        named + b'; name="other"',
    ):
        yield form(part(head) + b"--x--\r\n")
    yield form(part(named) * 2000 + b"--x--")
    yield form(part(named) + part(named) + b"--x--")
    yield form(part(named))
    yield form(b"--x\r\n" + b"A: b\r\n" * 20_000)
    yield from (
        form(part(named) + b"--x--", kind)
        for kind in (
            "multipart/form-data",
            "multipart/form-data; boundary=" + "x" * 300,
            'multipart/form-data; boundary=""',
            "multipart/mixed; boundary=x",
            "multipart/form-data; boundary=x; boundary=y",
            "multipart/form-data;" + "a=b;" * 5000,
            "application/x-www-form-urlencoded",
            "application/json; charset=utf-7",
            "application/jsonp",
            "\xff/\xfe",
        )
    )


def guess_keys(server: Server) -> Iterator[bytes]:
    key = server.key
    guesses = (
        "",
        key[:-1],
        key + "x",
        key.upper() if key.upper() != key else key.lower(),
        " " * 10,
        "a" * 30_000,
        "\xff\xfe",
        key.replace(key[0], "\xc3", 1),
        "null",
        "*",
    )
    for guess in guesses:
        yield make_request(server, "GET", "/v1/map", X_API_Key=guess)
        yield make_request(server, "GET", "/v1/map", X_API_Key="", Authorization=f"Bearer {guess}")
        yield make_request(server, "GET", "/metrics", X_API_Key="", Cookie=f"vmnet_session={guess}")
    bare = [
        make_request(server, "GET", target, X_API_Key="")
        for target in (
            "/v1/map",
            "/metrics",
            "/v1/items/0001",
            "/v1/items/0001/media",
            "/%76%31/map",
            "/v1/./map",
            f"/v1/map?key={key}",
            f"/v1/map?x_api_key={key}",
        )
    ]
    yield from bare
    yield make_request(server, "GET", "/v1/map", X_API_Key="", Authorization=f"Basic {key}")
    yield make_request(
        server, "GET", "/v1/map", X_API_Key="", Cookie='vmnet_session="\\"; a=b; vmnet_session=' + "0" * 64
    )
    for cookie in ('a="' + "\\" * 40_000, ";" * 40_000, "=" * 40_000, 'a="' + '\\"' * 20_000):
        yield make_request(server, "GET", "/v1/map", X_API_Key="", Cookie=cookie)
    yield make_request(server, "POST", "/v1/recommendations", b"x" * 300_000, X_API_Key="")
    yield make_request(server, "POST", "/v1/session/", b'{"key":"x"}', X_API_Key="")


def flip_requests(server: Server, n: int, seed: int) -> Iterator[bytes]:
    """Damaged copies of good requests."""
    good = [
        make_request(server, "GET", "/v1/items/0001"),
        make_request(server, "GET", "/v1/items/0001/media?side=music", Range="bytes=0-9"),
        post_json(
            server, "/v1/recommendations", b'{"id": "0001", "query": "video", "top_k": 3, "filters": ["tag=rock"]}'
        ),
        make_request(server, "GET", "/main.js", Connection="close"),
        make_request(server, "POST", "/v1/session", b'{"key": "x"}', Content_Type="application/json"),
    ]
    chance = random.Random(seed)
    for _ in range(n):
        yield mutate(chance.choice(good), chance)[:200_000]
