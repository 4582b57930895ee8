"""The service below a path: of a proxy that strips it in silence, of nginx and Caddy as docs/deployment.md has them."""

import http.client
import http.server
import re
import shutil
import socket
import subprocess
import threading
import time
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest
from live_server import get, run_with, talk

from vmnet_pipeline.commands.settings import read_settings
from vmnet_pipeline.errors import ParameterError
from vmnet_pipeline.serving.config import ServeParams, is_prefix
from vmnet_pipeline.serving.proxies import PREFIX, TrustedProxies

DOCS = Path(__file__).parents[2] / "docs" / "deployment.md"


def call(path, headers=None, client="127.0.0.1", trusted=("127.0.0.1",), root_path=""):
    """The scope that the application sees, or the place that the client is sent to."""
    import asyncio

    seen, messages = [], []

    async def application(scope, receive, send):
        seen.append(scope)

    async def send(message):
        messages.append(message)

    raw = [(name.encode(), value.encode()) for name, value in (headers or {}).items()]
    scope = {"type": "http", "method": "GET", "path": path, "headers": raw, "client": (client, 1), "scheme": "http"}
    asyncio.run(TrustedProxies(application, trusted, root_path)(scope, None, send))
    return seen[0] if seen else dict(messages[0]["headers"])[b"location"].decode()


TOLD = {"headers": {"x-forwarded-prefix": "/music"}}


@pytest.mark.parametrize(
    ("path", "options", "prefix", "seen"),
    [
        ("/v1/map", {}, "", "/v1/map"),
        ("/v1/map", {"headers": {"x-forwarded-prefix": "/music"}}, "/music", "/v1/map"),
        ("/v1/map", {"headers": {"x-forwarded-prefix": "/music/"}}, "/music", "/v1/map"),
        ("/music/v1/map", {"headers": {"x-forwarded-prefix": "/music"}}, "/music", "/v1/map"),
        ("/music/", {"root_path": "/music"}, "/music", "/"),
        ("/v1/map", {"root_path": "/music"}, "/music", "/v1/map"),
        ("/musical/v1/map", {"root_path": "/music"}, "/music", "/musical/v1/map"),
        ("/v1/map", {"root_path": "/a", "headers": {"x-forwarded-prefix": "/b/c"}}, "/b/c", "/v1/map"),
        ("/v1/map", {"headers": {"x-forwarded-prefix": "/music"}, "client": "10.0.0.1"}, "", "/v1/map"),
        ("/v1/map", {**TOLD, "client": "10.0.0.1", "trusted": ("10.0.0.0/8",)}, "/music", "/v1/map"),
        ("/v1/map", {"headers": {"x-forwarded-prefix": "/music"}, "trusted": ()}, "", "/v1/map"),
        ("/v1/map", {"headers": {"x-forwarded-prefix": "//evil.example"}}, "", "/v1/map"),
        ("/v1/map", {"headers": {"x-forwarded-prefix": "/a; Domain=evil.example"}}, "", "/v1/map"),
        ("/v1/map", {"headers": {"x-forwarded-prefix": "/../a"}}, "", "/v1/map"),
        ("/v1/map", {"headers": {"x-forwarded-prefix": "/" + "a" * 300}}, "", "/v1/map"),
    ],
)  # fmt: skip
def test_a_prefix_is_believed_of_trusted_proxies_only(path, options, prefix, seen):
    scope = call(path, **options)
    assert (scope[PREFIX], scope["path"], scope.get("root_path", "")) == (prefix, seen, "")


def test_the_folder_of_the_page_ends_with_a_slash():
    assert call("/music", root_path="/music") == "/music/"


def test_client_and_scheme_are_those_that_a_trusted_proxy_tells():
    told = {"x-forwarded-for": "192.0.2.7", "x-forwarded-proto": "https"}
    scope = call("/", told)
    assert (scope["client"][0], scope["scheme"]) == ("192.0.2.7", "https")
    scope = call("/", told, client="10.0.0.1")
    assert (scope["client"][0], scope["scheme"]) == ("10.0.0.1", "http")


def test_settings_of_proxies_are_checked():
    assert (
        read_settings(("root_path=/music/", "trusted_proxies=[10.0.0.0/8, '::1']"), ServeParams).root_path == "/music"
    )
    for wrong in ("root_path=music", "root_path=/a b", "root_path=https://a", "trusted_proxies=[proxy]"):
        with pytest.raises(ParameterError, match=wrong.partition("=")[0]):
            read_settings((wrong,), ServeParams)
    assert is_prefix("")
    assert ServeParams().trusted_proxies == ("127.0.0.1", "::1")


def test_the_key_is_asked_for_below_a_prefix_too(service, live):
    with run_with(service, "open sesame", root_path="/music") as port:
        for path in ("/music/v1/map", "/v1/map", "/music/metrics", "/music/v1/items/0001/media"):
            assert talk(port, get(path, "Connection: close")).split()[1] == b"401", path
        answer = talk(port, get("/music/v1/map", "X-API-Key: open sesame", "Connection: close"))
        assert answer.split()[1] == b"200"
        session = httpx.post(f"http://127.0.0.1:{port}/music/v1/session", json={"key": "open sesame"})
        assert "Path=/music;" in session.headers["set-cookie"]
        assert httpx.get(f"http://127.0.0.1:{port}/music/openapi.json").json()["servers"] == [{"url": "/music"}]


# --- real proxies


@contextmanager
def run_silent_proxy(port):
    """A proxy that strips `/music` and tells nothing of it; everything else is not there."""

    class Handler(http.server.BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self):
            self.answer(None)

        def do_HEAD(self):
            self.answer(None)

        def do_POST(self):
            self.answer(self.rfile.read(int(self.headers["Content-Length"])))

        def answer(self, body):
            if not self.path.startswith("/music/"):
                self.send_error(404)
                return
            connection = http.client.HTTPConnection("127.0.0.1", port)
            headers = {name: value for name, value in self.headers.items() if name.lower() != "content-length"}
            connection.request(self.command, self.path.removeprefix("/music"), body, headers)
            answer = connection.getresponse()
            content = answer.read()
            self.send_response(answer.status)
            for name, value in answer.getheaders():
                if name.lower() not in ("content-length", "connection", "transfer-encoding", "server", "date"):
                    self.send_header(name, value)
            is_head = self.command == "HEAD"
            self.send_header("Content-Length", answer.getheader("Content-Length") if is_head else str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        def log_message(self, *arguments):
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield server.server_port
    finally:
        server.shutdown()
        server.server_close()


def find_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def read_example(language):
    """The configuration in docs/deployment.md."""
    return re.search(rf"```{language}\n(.*?)```", DOCS.read_text(encoding="utf-8"), re.DOTALL)[1]


@contextmanager
def run_program(command, port):
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    try:
        ends = time.monotonic() + 30
        while time.monotonic() < ends and process.poll() is None:
            with socket.socket() as probe:
                if probe.connect_ex(("127.0.0.1", port)) == 0:
                    break
            time.sleep(0.05)
        assert process.poll() is None, process.stdout.read().decode()
        yield port
    finally:
        process.terminate()
        process.wait(20)


@contextmanager
def run_nginx(port, folder):
    if shutil.which("nginx") is None:
        pytest.skip("no nginx here")
    own = find_port()
    site = read_example("nginx").replace("listen 443 ssl;", f"listen 127.0.0.1:{own};").replace(":8321", f":{port}")
    site = re.sub(r"^\s*ssl_.*\n", "", site, flags=re.MULTILINE).replace("music.example.org", "127.0.0.1")
    places = "".join(
        f"{kind}_temp_path {folder}/{kind};" for kind in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
    )
    (folder / "nginx.conf").write_text(
        f"daemon off; pid {folder}/pid; error_log {folder}/errors; events {{}}\n"
        f"http {{ access_log off; {places}\n{site}\n}}\n"
    )
    command = ["nginx", "-p", str(folder), "-e", f"{folder}/errors", "-c", f"{folder}/nginx.conf"]
    with run_program(command, own):
        yield own


@contextmanager
def run_caddy(port, folder):
    if shutil.which("caddy") is None:
        pytest.skip("no Caddy here")
    own = find_port()
    site = read_example("caddy").replace("music.example.org", f"http://127.0.0.1:{own}").replace(":8321", f":{port}")
    (folder / "Caddyfile").write_text("{\n\tadmin off\n\tauto_https off\n}\n" + site)
    with run_program(["caddy", "run", "--adapter", "caddyfile", "--config", str(folder / "Caddyfile")], own):
        yield own


@pytest.fixture(params=["silent", "nginx", "caddy"])
def shown(request, service, live, tmp_path, monkeypatch):
    """Address of the service below `/music/` of a proxy, and whether the proxy tells of the path."""
    monkeypatch.setenv("HOME", str(tmp_path))
    run = {"silent": lambda port, folder: run_silent_proxy(port), "nginx": run_nginx, "caddy": run_caddy}[request.param]
    with run_with(service) as port, run(port, tmp_path) as own:
        yield f"http://127.0.0.1:{own}/music/", request.param != "silent"


def test_the_interface_behind_a_proxy(shown, manifest):
    address, is_told = shown
    with httpx.Client(timeout=60) as client:
        assert client.get(f"{address}main.js").status_code == 200
        content = Path(manifest.loc["0001", "audio_path"]).read_bytes()
        found = client.post(f"{address}v1/recommendations?query=music", content=content)
        assert found.status_code == 200, found.text
        media = found.url.join(found.json()["results"][0]["media"])
        assert str(media).startswith(f"{address}v1/items/")
        whole = client.get(media)
        assert whole.status_code == 200
        part = client.get(media, headers={"range": "bytes=1-3"})
        assert (part.status_code, part.content) == (206, whole.content[1:4])
        assert client.head(media).headers["content-length"] == str(len(whole.content))
        beyond = client.get(media, headers={"range": f"bytes={len(whole.content)}-"})
        assert (beyond.status_code, beyond.headers["content-range"]) == (416, f"bytes */{len(whole.content)}")
        item = client.get(f"{address}v1/items/0001")
        assert client.get(item.url.join(item.json()["media"]["video"])).status_code == 200
        servers = client.get(f"{address}openapi.json").json()["servers"]
        assert servers == [{"url": "/music" if is_told else "/"}]
        assert client.get(f"{address}v1/map", headers={"sec-fetch-site": "cross-site"}).status_code == 403
        own = str(httpx.URL(address).copy_with(path="")).rstrip("/")
        assert client.get(f"{address}v1/map", headers={"origin": own}).status_code == 200
        if is_told:
            bare = client.get(address.rstrip("/"))
            assert bare.status_code in (301, 302, 307, 308)
            assert httpx.URL(address).join(bare.headers["location"]).path == "/music/"
