"""Hostile requests over bare sockets to a running service with a key; what it says and writes into its log."""

import copy
import logging
import sys
from pathlib import Path

import pytest
from serving_collection import run_live

sys.path.insert(0, str(Path(__file__).parents[1] / "torture"))
import attacks

KEY = "open-sesame-8f3a1c"
LIMIT_S = 1.0


@pytest.fixture(scope="module")
def server(live, service, places):
    """A second server of the same service, with a key and little patience."""
    other = copy.copy(service)
    other.params = service.params.model_copy(
        update={"head_timeout_s": LIMIT_S, "max_connections": 30, "max_upload_mb": 1.0}
    )
    secrets = (KEY.encode(), str(places.output).encode(), str(places.media_roots[0]).encode())
    with run_live(other, KEY, lifespan="off") as address:
        yield attacks.Server(int(address.rpartition(":")[2]), KEY, secrets)


@pytest.fixture
def log(server, caplog):
    """What is in the log afterwards has no path, no traceback and no key."""
    caplog.set_level(logging.INFO)
    yield caplog
    text = caplog.text.encode()
    assert not attacks.LEAKS.search(text), text[-2000:]
    assert not [secret for secret in server.secrets if secret in text]


def test_no_hostile_request_gets_through_or_breaks_anything(server, log, service):
    rows = attacks.attack_all(server, n_flipped=60)
    assert [failure for row in rows for failure in row.failures] == []
    assert all(row.tried >= 10 for row in rows)
    assert service.metrics.jobs._value.get() == 0
    assert list(service.uploads.path.iterdir()) == []


def test_slow_senders_are_ended(server, log):
    assert attacks.be_slow(server, LIMIT_S).failures == []


def test_held_connections_do_not_close_the_service_for_long(server, log, service):
    before = service.metrics.refused.labels("overloaded")._value.get()
    assert attacks.hold_connections(server, 45, LIMIT_S).failures == []
    assert service.metrics.refused.labels("overloaded")._value.get() >= before + 15


def test_what_is_too_large_is_refused(server, log, service):
    assert attacks.upload_too_much(server, 1 << 20).failures == []
    assert list(service.uploads.path.iterdir()) == []


def test_methods_of_a_clients_own_add_no_series(server):
    for method in ("FOO", "BAR", "BAZ"):
        assert attacks.talk(server, attacks.make_request(server, method, "/v1/map")).status == 405
    text = attacks.talk(server, attacks.make_request(server, "GET", "/metrics")).body
    assert b"FOO" not in text
    assert b'method="-",route="unknown",status="405"' in text
