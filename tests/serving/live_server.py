"""A second server of the service of the session, with limits of its own, and bare connections to it."""

import copy
import socket
from contextlib import contextmanager

from serving_collection import run_live


@contextmanager
def run_with(service, key=None, **limits):
    """Its port; the workers are those of the session."""
    other = copy.copy(service)
    other.params = service.params.model_copy(update=limits)
    with run_live(other, key, lifespan="off") as address:
        yield int(address.rpartition(":")[2])


def connect(port, receive_buffer=None):
    connection = socket.socket()
    if receive_buffer:
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
    connection.settimeout(30)
    connection.connect(("127.0.0.1", port))
    return connection


def talk(port, *pieces):
    """Everything that a server answers until it closes, as bytes."""
    with connect(port) as connection:
        try:
            for piece in pieces:
                connection.sendall(piece)
        except OSError:
            pass  # refused before the end
        return read_all(connection)


def read_all(connection):
    received = b""
    try:
        while piece := connection.recv(1 << 16):
            received += piece
    except ConnectionError:
        pass
    return received


def get(path, *lines):
    return "\r\n".join([f"GET {path} HTTP/1.1", "Host: 127.0.0.1", *lines, "", ""]).encode("latin-1")
