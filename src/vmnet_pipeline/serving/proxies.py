"""Forwarded headers, from trusted proxies only."""

from __future__ import annotations

import ipaddress
from typing import TYPE_CHECKING, Any, cast

from starlette.datastructures import Headers
from starlette.responses import RedirectResponse
from uvicorn.middleware.proxy_headers import ProxyHeadersMiddleware

from vmnet_pipeline.serving.config import is_prefix
from vmnet_pipeline.serving.middleware import SECURITY_HEADERS

if TYPE_CHECKING:
    from collections.abc import Sequence

    from starlette.types import ASGIApp, Receive, Scope, Send

PREFIX = "vmnet.prefix"  # key of the scope: the path below which clients see the service; empty for the root


class TrustedProxies:
    """ASGI layer that reads `X-Forwarded-Prefix`, `-For` and `-Proto` of trusted proxies.

    The application sees paths without the prefix, whether the proxy strips it or not.

    Args:
        trusted: Addresses and networks of proxies.
        root_path: Prefix if no proxy sends one.
    """

    def __init__(self, app: ASGIApp, trusted: Sequence[str], root_path: str = "") -> None:
        self._inner = ProxyHeadersMiddleware(cast("Any", app), list(trusted))
        self._trusted, self._root_path = [ipaddress.ip_network(text) for text in trusted], root_path

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request on with its real client, scheme and prefix."""
        if scope["type"] == "http":
            prefix = self._find_prefix(scope)
            if prefix and scope["path"] == prefix:  # the links of the page are relative to its folder
                await RedirectResponse(f"{prefix}/", headers=SECURITY_HEADERS)(scope, receive, send)
                return
            scope[PREFIX] = prefix
            if scope["path"].startswith(f"{prefix}/"):
                scope["path"] = scope["path"][len(prefix) :]
        await cast("Any", self._inner)(scope, receive, send)

    def _find_prefix(self, scope: Scope) -> str:
        told = Headers(scope=scope).get("x-forwarded-prefix", "").rstrip("/")
        return told if told and is_prefix(told) and self._trusts(scope.get("client")) else self._root_path

    def _trusts(self, client: tuple[str, int] | None) -> bool:
        try:
            address = ipaddress.ip_address(client[0]) if client else None
        except ValueError:
            return False
        return address is not None and any(address in network for network in self._trusted)
