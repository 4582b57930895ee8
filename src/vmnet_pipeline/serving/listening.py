"""Take the port of the service, so that one that is in use is told before anything is loaded."""

from __future__ import annotations

import errno
import socket
from contextlib import suppress

from vmnet_pipeline.errors import ParameterError

BACKLOG = 2048  # as of uvicorn


def listen(host: str, port: int) -> list[socket.socket]:
    """Listen at every address of a host; the first one counts where others are not available.

    Args:
        host: Name or address; empty means all addresses.
        port: 0 takes a free one.

    Raises:
        ParameterError: The host is not one of this machine, or the port is in use or not allowed.
    """
    try:
        found = socket.getaddrinfo(host or None, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    except (socket.gaierror, UnicodeError) as error:
        raise ParameterError(f"--host {host}: not the name or address of a machine ({error})") from error
    sockets: list[socket.socket] = []
    for family, _, _, _, address in dict.fromkeys(found):
        taken = sockets[0].getsockname()[1] if sockets else port
        try:
            sockets.append(_listen_at(family, (address[0], taken, *address[2:])))
        except OSError as error:
            if sockets or error.errno == errno.EAFNOSUPPORT:  # localhost without IPv6
                continue
            raise ParameterError(_explain(error, host, port)) from error
    if not sockets:
        raise ParameterError(f"--host {host}: no address of this machine")
    return sockets


def _listen_at(family: int, address: tuple[object, ...]) -> socket.socket:
    own = socket.socket(family, socket.SOCK_STREAM)
    try:
        own.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if family == socket.AF_INET6:
            with suppress(OSError):
                own.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        own.bind(address)
        own.listen(BACKLOG)
    except OSError:
        own.close()
        raise
    return own


def _explain(error: OSError, host: str, port: int) -> str:
    if error.errno == errno.EADDRINUSE:
        return f"port {port} of {host} is in use. Give another one with --port, or end the program that has it."
    if error.errno == errno.EACCES:
        return f"port {port} is not allowed for this user. Give one above 1023 with --port."
    return f"--host {host}: it cannot be listened at here ({error.strerror}). Give an address of this machine."
