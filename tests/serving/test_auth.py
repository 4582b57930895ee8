"""Keys that nobody could send are refused at the start; who guesses is slowed down, who has the key is not shut out."""

import asyncio
import time
from types import SimpleNamespace

import httpx
import pytest
from live_server import run_with
from serving_middleware import call_guard

from vmnet_pipeline.errors import ParameterError
from vmnet_pipeline.serving import auth
from vmnet_pipeline.serving.auth import ApiKey, Throttle, name_client
from vmnet_pipeline.serving.config import TRANSPORT


@pytest.mark.parametrize(
    ("key", "words"),
    [
        ("", "it is empty"),
        ("   ", "it is blank"),
        ("\t\n", "it is blank"),
        ("schlüssel", "not ASCII"),
        ("key\n", "blanks at an end"),
        (" key", "blanks at an end"),
        ("ke\x00y", "control characters"),
        ("a" * 1001, "more than 1000 characters"),
    ],
)
def test_a_key_that_cannot_be_sent_is_refused(key, words):
    with pytest.raises(ParameterError, match=words) as caught:
        ApiKey(key)
    assert "VMNET_API_KEY" in str(caught.value)
    assert "unset it" in str(caught.value)
    assert not key.strip() or key not in str(caught.value)


def test_the_command_says_so_before_it_reads_anything(tmp_path, monkeypatch):
    from click.testing import CliRunner

    from vmnet_pipeline.cli import cli

    monkeypatch.setenv("VMNET_API_KEY", "")
    done = CliRunner().invoke(cli, ["serve", "--index-dir", str(tmp_path)])
    assert done.exit_code == 1
    assert "VMNET_API_KEY is set, but it is empty" in done.output


class Clock:
    """Time that the test moves; sleeping moves it."""

    def __init__(self, monkeypatch):
        self.now, self.slept = 1000.0, 0.0
        monkeypatch.setattr(auth, "time", SimpleNamespace(monotonic=lambda: self.now))
        monkeypatch.setattr(auth, "asyncio", SimpleNamespace(sleep=self.sleep))

    async def sleep(self, seconds):
        self.now += seconds
        self.slept += seconds


@pytest.fixture
def clock(monkeypatch):
    return Clock(monkeypatch)


def ask(key, given, client="10.0.0.1"):
    scope = {"type": "http", "client": (client, 1)}
    return asyncio.run(key.admits(given, scope))


def test_guesses_take_longer_and_longer_and_the_right_key_gets_in(clock):
    key = ApiKey("open sesame")
    waits = []
    for number in range(40):
        before = clock.slept
        assert not ask(key, f"guess {number}")
        waits.append(clock.slept - before)
    assert waits[:5] == [0.0] * 5
    assert waits[5:] == sorted(waits[5:])
    assert waits[-1] >= 4.9
    before = clock.slept
    assert ask(key, "open sesame")
    assert clock.slept - before <= 1.0
    assert ask(key, "open sesame", client="10.0.0.2")
    assert clock.slept - before <= 1.0  # another client does not wait at all
    clock.now += 3600
    before = clock.slept
    assert not ask(key, "mistyped")
    assert clock.slept == before  # forgotten


def test_many_addresses_are_slowed_down_together_and_take_no_memory(clock):
    key = ApiKey("open sesame")
    for number in range(10_000):
        ask(key, "guess", client=f"10.{number >> 16}.{number >> 8 & 255}.{number & 255}")
    assert clock.slept > 1000
    assert len(key._per_client._failures) <= auth.MAX_CLIENTS
    before = clock.slept
    assert ask(key, "open sesame", client="192.0.2.1")
    assert clock.slept - before <= 1.0


def test_an_ipv6_client_is_its_network():
    assert name_client({"client": ("2001:db8::1", 1)}) == name_client({"client": ("2001:db8::ffff", 2)})
    assert name_client({"client": ("2001:db8::1", 1)}) != name_client({"client": ("2001:db8:0:1::1", 1)})
    assert name_client({"client": ("::ffff:10.0.0.1", 1)}) == name_client({"client": ("10.0.0.1", 1)}) == "10.0.0.1"
    assert name_client({"client": None}) == ""


def test_a_throttle_forgets(clock):
    throttle = Throttle(n_free=2, forget_s=10.0)
    for _ in range(1000):
        throttle.add_failure("a")
    assert throttle.find_wait("a") == auth.LONGEST_WAIT_S
    assert throttle.find_wait("b") == 0.0
    clock.now += 10.0 * (auth.MAX_OVER + 3)
    assert throttle.find_wait("a") == 0.0


def test_who_hangs_up_is_not_waited_for(clock):
    class Transport:
        def is_closing(self):
            return True

    key = ApiKey("open sesame")
    scope = {"type": "http", "client": ("10.0.0.1", 1), "extensions": {TRANSPORT: Transport()}}
    for _ in range(50):
        asyncio.run(key.admits("guess", scope))
    assert clock.slept == 0.0


def test_guesses_at_a_running_service(service, live):
    """By header and by the page's form; the cookie and the key go on, others do not notice."""
    with (
        run_with(service, "open sesame") as port,
        httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=60) as client,
    ):
        cookie = {"cookie": f"vmnet_session={ApiKey('open sesame').make_cookie()}"}
        for number in range(4):
            assert client.get("/v1/map", headers={"x-api-key": f"guess {number}"}).status_code == 401
            assert client.post("/v1/session", json={"key": f"guess {number}"}).status_code == 401
        began = time.monotonic()
        assert client.get("/v1/map", headers={"authorization": "Bearer guess"}).status_code == 401
        assert time.monotonic() - began >= 0.5
        assert client.get("/v1/map", headers={"x-api-key": "open sesame"}).status_code == 200
        assert client.get("/v1/map", headers=cookie).status_code == 200
        assert client.get("/healthz").status_code == 200


def test_a_request_without_a_key_is_no_guess():
    key = ApiKey("open sesame")
    for _ in range(20):
        assert call_guard("/v1/map", {}, key=key)[0] == 401
        assert call_guard("/v1/map", {"cookie": "vmnet_session=guess"}, key=key)[0] == 401
    assert not key._per_client._failures
