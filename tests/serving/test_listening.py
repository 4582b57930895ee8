"""The port of the service."""

import socket

import pytest

from vmnet_pipeline.errors import ParameterError
from vmnet_pipeline.serving.listening import listen


def test_a_free_port_is_taken_at_all_addresses_of_a_name():
    sockets = listen("localhost", 0)
    try:
        ports = {own.getsockname()[1] for own in sockets}
        assert len(ports) == 1
        with socket.create_connection(("127.0.0.1", ports.pop()), timeout=5):
            pass
    finally:
        for own in sockets:
            own.close()


def test_a_port_is_taken_once():
    (first,) = listen("127.0.0.1", 0)
    port = first.getsockname()[1]
    with first, pytest.raises(ParameterError, match=r"port \d+ of 127\.0\.0\.1 is in use"):
        listen("127.0.0.1", port)
    (again,) = listen("127.0.0.1", port)
    again.close()
