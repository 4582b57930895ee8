"""What judges the replies of the attacks and the ends of requests during restarts; the attacks run in tests/serving."""

import pytest
from attacks import REQUIRED, Reply, find_fault
from hostile_requests import Server
from service import judge

SERVER = Server(1, "a key", (b"a key",))
HEADERS = {**dict.fromkeys(REQUIRED, "x"), "content-type": "application/json"}
BODY = b'{"error": {"code": "a", "message": "b"}}'


@pytest.mark.parametrize(
    ("reply", "fault"),
    [
        (Reply(404, HEADERS, BODY, BODY), ""),
        (Reply(0), ""),
        (Reply(-1), "stays open"),
        (Reply(500, HEADERS, BODY, BODY), "status 500"),
        (Reply(200, {**HEADERS, "access-control-allow-origin": "*"}), "other origins"),
        (Reply(200, {"content-type": "text/html"}), "without x-content-type-options"),
        (Reply(400, HEADERS, b'{"detail": "x"}'), "another form|'error'"),
        (Reply(400, {**HEADERS, "content-type": "text/plain"}, b"no"), "another form"),
        (Reply(200, HEADERS, b"", b'File "/usr/lib/a.py", line 3'), "tells"),
        (Reply(200, HEADERS, b"", b"it is a key"), "tells"),
    ],
)
def test_a_reply_is_judged(reply, fault):
    found = find_fault(SERVER, reply)
    assert bool(found) is bool(fault)
    assert any(part in found for part in fault.split("|"))


@pytest.mark.parametrize(
    ("started", "end", "is_lost"),
    [
        (8.0, "200", False),
        (8.0, "429", False),
        (8.0, "closed", True),
        (9.8, "closed", False),
        (10.5, "closed", False),
        (10.5, "broken: IncompleteRead after status 200", True),
        (8.0, "500", True),
        (0.0, "not connected", False),
    ],
)
def test_the_end_of_a_request_is_judged(started, end, is_lost):
    kind, failure = judge(("search", started, end), signalled=10.0)
    assert bool(failure) is is_lost
    assert bool(kind) is not is_lost
