"""ASGI middleware around the application: access, timeouts, request metrics, security headers."""

from __future__ import annotations

import asyncio
import ipaddress
import logging
import re
import time
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from starlette.datastructures import Headers, MutableHeaders
from starlette.requests import ClientDisconnect

from vmnet_pipeline.serving.config import TRANSPORT
from vmnet_pipeline.serving.errors import RefusedError, describe_failure, make_error_response

if TYPE_CHECKING:
    from collections.abc import Sequence

    from starlette.types import ASGIApp, Message, Receive, Scope, Send

    from vmnet_pipeline.serving.auth import ApiKey
    from vmnet_pipeline.serving.config import ServeParams
    from vmnet_pipeline.serving.metrics import Metrics

logger = logging.getLogger(__name__)

OPEN_PATH = "/v1/session"
GUARDED = ("/v1/", "/metrics")
SECURITY_HEADERS = {
    "Content-Security-Policy": "default-src 'self'; media-src 'self' blob:; img-src 'self' data:; object-src 'none'; "
    "base-uri 'none'; form-action 'self'; frame-ancestors 'none'",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Permissions-Policy": "camera=(), geolocation=(), microphone=()",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
}


IS_HEAD = "vmnet.is_head"  # key of the scope: the request is a HEAD, which the application sees as a GET
_HOST = re.compile(r"(?:\[([0-9a-fA-F:.]{1,45})\]|([^:\[\]/@]{1,255}))(?::\d{0,5})?")


class ServiceMiddleware:
    """ASGI layer around the whole application."""

    def __init__(self, app: ASGIApp, *, params: ServeParams, key: ApiKey, metrics: Metrics) -> None:
        self._app, self._params, self._key, self._metrics = app, params, key, metrics

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Refuse a request or pass it on, and count it."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        method = scope["method"]
        if method == "HEAD":  # routes are declared for GET only
            scope = {**scope, "method": "GET", IS_HEAD: True}
        started, sender = time.monotonic(), _Sender(send, is_head=method == "HEAD")
        try:
            await self._answer(scope, _Receiver(receive, self._params), sender)
        finally:
            # Requests without a route share one label, so that clients cannot add series; some routers also set the
            # route for a refused method.
            route = _name_route(scope) if sender.status != 405 else "unknown"
            method = method if route != "unknown" else "-"
            self._metrics.requests.labels(route, method, str(sender.status)).inc()
            self._metrics.seconds.labels(route).observe(time.monotonic() - started)

    async def _answer(self, scope: Scope, receive: Receive, sender: _Sender) -> None:
        refusal = await self._find_refusal(scope, Headers(scope=scope))
        if refusal is not None:
            await refusal(scope, receive, sender)
            return
        is_media = scope["path"].endswith("/media")
        try:
            async with asyncio.timeout(self._params.media_timeout_s if is_media else self._params.request_timeout_s):
                await self._app(scope, receive, sender)
        except ClientDisconnect:
            return
        except TimeoutError:
            logger.warning("A request to %s took too long", _name_route(scope))
            self._metrics.refused.labels("timeout").inc()
            if not sender.has_started:
                await make_error_response(504, "timeout", "Processing timed out.")(scope, receive, sender)
            else:
                _cut_off(scope)
        except Exception as error:
            logger.error("A request to %s failed: %s", _name_route(scope), describe_failure(error))
            if not sender.has_started:
                sentence = "Internal error; see the log of the service."
                await make_error_response(500, "failed", sentence)(scope, receive, sender)
            else:
                _cut_off(scope)

    async def _find_refusal(self, scope: Scope, headers: Headers) -> Any:
        path = scope["path"]
        if not _is_known_host(headers.get("host", ""), self._params.allowed_hosts):
            return make_error_response(400, "unknown_host", "Unknown Host header; see `allowed_hosts`.")
        if not path.startswith(GUARDED):
            return None
        if not _is_own_page(headers, self._params.allowed_origins):
            return make_error_response(
                403, "foreign_page", "Cross-origin requests are not allowed; see `allowed_origins`."
            )
        # Browsers ask by OPTIONS whether they may send a key; no route accepts it.
        is_open = path == OPEN_PATH or scope["method"] == "OPTIONS"
        if not is_open and not await self._key.allows(scope, headers):
            return make_error_response(401, "no_key", "Missing or invalid API key: send `X-API-Key: KEY`.")
        return None


def _is_own_page(headers: Headers, allowed: Sequence[str]) -> bool:
    """Whether a request does not come from a page of another site, which could send it without reading the response.

    Embedded images and videos come without `Origin`; for them browsers send `Sec-Fetch-Site`.
    """
    origin, host = headers.get("origin"), headers.get("host", "")
    if origin is None:
        return headers.get("sec-fetch-site", "none").lower() in ("none", "same-origin") or "*" in allowed
    if origin in allowed or "*" in allowed:
        return True
    try:
        return bool(host) and urlsplit(origin).netloc == host
    except ValueError:
        return False


def _is_known_host(host: str, allowed: Sequence[str]) -> bool:
    if "*" in allowed:
        return True
    match = _HOST.fullmatch(host)
    if match is None:
        return False
    name = _name_host(match[1] or match[2])
    return any(name == _name_host(known) or (known[:2] == "*." and name.endswith(known[1:])) for known in allowed)


def _name_host(text: str) -> str:
    """A host name in lower case, or the canonical form of an IPv6 address."""
    text = text.lower().removeprefix("[").removesuffix("]")
    try:
        return ipaddress.ip_address(text.partition("%")[0]).compressed if ":" in text else text
    except ValueError:
        return text


def _cut_off(scope: Scope) -> None:
    """Abort a connection whose response cannot be completed, even if its client reads nothing."""
    transport = scope.get("extensions", {}).get(TRANSPORT)
    if transport is not None:
        transport.abort()


def _name_route(scope: Scope) -> str:
    return str(getattr(scope.get("route"), "path", "unknown"))


async def answer_when_full(app: ASGIApp, scope: Scope, receive: Receive, send: Send) -> None:
    """Replace the application on connections above the limit: answer health checks only."""
    if scope["type"] != "http" or scope["path"].endswith(("/healthz", "/readyz")):
        await app(scope, receive, send)
        return
    response = make_error_response(503, "overloaded", "Too many connections; try again soon.", 1)
    response.headers["Connection"] = "close"
    await response(scope, receive, _Sender(send))


class _Receiver:
    """Receives a body, and refuses it when it comes too slowly."""

    def __init__(self, receive: Receive, params: ServeParams) -> None:
        self._receive, self._rate = receive, 1024 * params.min_body_kb_s
        self._grace_ends = asyncio.get_running_loop().time() + params.head_timeout_s
        self._size, self._is_whole = 0, self._rate == 0

    async def __call__(self) -> Message:
        if self._is_whole:
            return await self._receive()
        try:
            async with asyncio.timeout_at(self._grace_ends + self._size / self._rate):
                message = await self._receive()
        except TimeoutError as error:
            raise RefusedError(408, "slow_body", "Request body timed out.") from error
        self._size += len(message.get("body", b""))
        self._is_whole = not message.get("more_body", False)
        return message


class _Sender:
    """Sends messages; remembers the status and adds headers."""

    def __init__(self, send: Send, *, is_head: bool = False) -> None:
        self._send, self.status, self.has_started = send, 499, False
        self._is_head = is_head

    async def __call__(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self.status, self.has_started = message["status"], True
            headers = MutableHeaders(scope=message)
            for name, value in SECURITY_HEADERS.items():
                headers.setdefault(name, value)
            headers.setdefault("Cache-Control", "no-store")
        elif self._is_head:
            message = {**message, "body": b""}
        await self._send(message)
