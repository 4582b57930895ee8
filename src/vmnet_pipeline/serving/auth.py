"""The API key of the service: headers, the cookie of the page, and throttling of wrong keys."""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import ipaddress
import time
from collections import OrderedDict
from typing import TYPE_CHECKING

from vmnet_pipeline.errors import ParameterError
from vmnet_pipeline.serving.config import TRANSPORT

if TYPE_CHECKING:
    from starlette.datastructures import Headers
    from starlette.types import Scope

KEY_VARIABLE = "VMNET_API_KEY"
MAX_KEY_LENGTH = 1000
COOKIE = "vmnet_session"
FIRST_WAIT_S, LONGEST_WAIT_S = 0.1, 5.0
# If the right key were accepted at once, an attacker could tell a wrong one by the delay and hang up.
LONGEST_WAIT_OF_RIGHT_KEY_S = 1.0
MAX_OVER = 15  # wrong keys beyond the free ones are counted up to here, so that they are forgotten in some minutes
MAX_CLIENTS = 4096
LOOK_S = 0.25


class Throttle:
    """A delay for each client that doubles with every wrong key. The latest clients are remembered, a bounded number.

    Args:
        n_free: Wrong keys without a delay: people mistype.
        forget_s: Time in which one wrong key is forgotten.
    """

    def __init__(self, n_free: int, forget_s: float) -> None:
        self._n_free, self._forget_s = n_free, forget_s
        self._failures: OrderedDict[str, tuple[float, float]] = OrderedDict()

    def find_wait(self, client: str) -> float:
        """Seconds to wait before answering this client."""
        n_over = self._count(client) - self._n_free
        return 0.0 if n_over < 0 else min(FIRST_WAIT_S * 2.0**n_over, LONGEST_WAIT_S)

    def add_failure(self, client: str) -> None:
        """Count a wrong key."""
        n = min(self._count(client) + 1, self._n_free + MAX_OVER)
        self._failures[client] = (n, time.monotonic())
        self._failures.move_to_end(client)
        if len(self._failures) > MAX_CLIENTS:
            self._failures.popitem(last=False)

    def _count(self, client: str) -> float:
        n, seen = self._failures.get(client, (0.0, 0.0))
        return max(0.0, n - (time.monotonic() - seen) / self._forget_s)


class ApiKey:
    """An optional key; None: open to everyone. Programs send it with every request, browsers exchange it for a cookie.

    Raises:
        ParameterError: The key cannot be sent in a header, or is blank or too long.
    """

    def __init__(self, key: str | None) -> None:
        if key is not None:
            _check_key(key)
        self._key = None if key is None else key.encode()
        # A lenient limit for all clients together: addresses may be many, or forged.
        self._per_client, self._overall = Throttle(n_free=5, forget_s=60.0), Throttle(n_free=200, forget_s=1.0)

    def accepts(self, given: str) -> bool:
        """Whether this is the key; takes the same time for every wrong one."""
        return self._key is None or hmac.compare_digest(_hash(given.encode()), _hash(self._key))

    async def admits(self, given: str, scope: Scope) -> bool:
        """Like `accepts`, with a delay after several wrong keys that ends when the client hangs up."""
        is_right = self.accepts(given)
        if self._key is None:
            return is_right
        client = name_client(scope)
        wait_s = max(self._per_client.find_wait(client), self._overall.find_wait(""))
        if not is_right:
            self._per_client.add_failure(client)
            self._overall.add_failure("")
        ends = time.monotonic() + (min(wait_s, LONGEST_WAIT_OF_RIGHT_KEY_S) if is_right else wait_s)
        transport = scope.get("extensions", {}).get(TRANSPORT)
        while (left := ends - time.monotonic()) > 0 and not (transport and transport.is_closing()):
            await asyncio.sleep(min(left, LOOK_S))
        return is_right

    def make_cookie(self) -> str:
        """The value of the cookie, from which the key cannot be derived."""
        return hmac.new(self._key or b"", b"session", hashlib.sha256).hexdigest()

    async def allows(self, scope: Scope, headers: Headers) -> bool:
        """Whether a request carries the key or its cookie."""
        if self._key is None:
            return True
        scheme, _, token = headers.get("authorization", "").partition(" ")
        given = headers.get("x-api-key", "") or (token if scheme.lower() == "bearer" else "")
        if given:
            return await self.admits(given, scope)
        # A cookie has 256 bits and cannot be guessed: no delay.
        cookie = _find_cookie(headers.get("cookie", ""))
        return hmac.compare_digest(_hash(cookie.encode()), _hash(self.make_cookie().encode()))


def name_client(scope: Scope) -> str:
    """The address of the client; for IPv6 its /64 network, all of which belongs to one client."""
    host = str((scope.get("client") or ("",))[0])
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        return host[:64]
    if address.version == 4:
        return str(address)
    return str(address.ipv4_mapped or ipaddress.ip_network((int(address) >> 64 << 64, 64)))


def _check_key(key: str) -> None:
    remedy = f"set {KEY_VARIABLE} to a long random word, or unset it to serve everyone who can reach the address"
    if not key.strip():
        raise ParameterError(f"{KEY_VARIABLE} is set, but it is {'blank' if key else 'empty'}: {remedy}")
    if not key.isascii() or not key.isprintable() or key != key.strip():
        fault = "has characters that are not ASCII, control characters, or blanks at an end"
        raise ParameterError(f"{KEY_VARIABLE} {fault}, which cannot be sent in a header: {remedy}")
    if len(key) > MAX_KEY_LENGTH:
        raise ParameterError(f"{KEY_VARIABLE} has more than {MAX_KEY_LENGTH} characters: {remedy}")


def _find_cookie(header: str) -> str:
    """The value of our cookie, or "".

    `http.cookies` takes seconds for a header full of backslashes, and fails at any other cookie that it cannot parse.
    """
    cookies = (part.strip().partition("=") for part in header.split(";"))
    return next((value for name, _, value in cookies if name == COOKIE), "")


def _hash(text: bytes) -> bytes:
    return hashlib.sha256(text).digest()
