"""Slow down guessing of the API key without locking out its owner."""

from __future__ import annotations

import asyncio
import ipaddress
import time
from collections import OrderedDict
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from starlette.types import Scope

TRANSPORT = "vmnet.transport"
"""Extension of the scope: the transport of the connection."""
FIRST_WAIT_S, LONGEST_WAIT_S = 0.1, 5.0
LONGEST_WAIT_OF_RIGHT_KEY_S = 1.0
"""Were the right key answered at once, who guesses would know a wrong one by the wait and hang up."""
MAX_OVER = 15
"""Wrong keys beyond those that cost nothing are counted up to here, so that they are forgotten in some minutes."""
MAX_CLIENTS = 4096
LOOK_S = 0.25


class Brake:
    """Remembers wrong keys by client: a bounded number of clients, the latest ones."""

    def __init__(self, n_free: int, forget_s: float) -> None:
        """Remember nothing yet.

        Args:
            n_free: Wrong keys that cost nothing: somebody has mistyped.
            forget_s: One wrong key is forgotten in this time.
        """
        self._n_free, self._forget_s = n_free, forget_s
        self._failures: OrderedDict[str, tuple[float, float]] = OrderedDict()

    def find_wait(self, client: str) -> float:
        """Seconds that the next answer about a key takes for this client."""
        n_over = self._count(client) - self._n_free
        return 0.0 if n_over < 0 else min(FIRST_WAIT_S * 2.0**n_over, LONGEST_WAIT_S)

    def add_failure(self, client: str) -> None:
        """A wrong key came from this client."""
        n = min(self._count(client) + 1, self._n_free + MAX_OVER)
        self._failures[client] = (n, time.monotonic())
        self._failures.move_to_end(client)
        if len(self._failures) > MAX_CLIENTS:
            self._failures.popitem(last=False)

    def _count(self, client: str) -> float:
        n, seen = self._failures.get(client, (0.0, 0.0))
        return max(0.0, n - (time.monotonic() - seen) / self._forget_s)


class KeyBrake:
    """Two brakes: for each client, and a lenient one for all together, as addresses may be many, or made up."""

    def __init__(self) -> None:
        self._each, self._all = Brake(n_free=5, forget_s=60.0), Brake(n_free=200, forget_s=1.0)

    async def wait(self, scope: Scope, *, is_right: bool) -> None:
        """Wait before a key is answered, as long as its client listens."""
        client = name_client(scope)
        wait_s = max(self._each.find_wait(client), self._all.find_wait(""))
        if not is_right:
            self._each.add_failure(client)
            self._all.add_failure("")
        ends = time.monotonic() + (min(wait_s, LONGEST_WAIT_OF_RIGHT_KEY_S) if is_right else wait_s)
        transport = scope.get("extensions", {}).get(TRANSPORT)
        while (left := ends - time.monotonic()) > 0 and not (transport and transport.is_closing()):
            await asyncio.sleep(min(left, LOOK_S))


def name_client(scope: Scope) -> str:
    """The address of the client; of IPv6 the network, since a client has all addresses of its own."""
    host = str((scope.get("client") or ("",))[0])
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        return host[:64]
    if address.version == 4:
        return str(address)
    return str(address.ipv4_mapped or ipaddress.ip_network((int(address) >> 64 << 64, 64)))
