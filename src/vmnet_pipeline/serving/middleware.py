"""What stands before every request: who may ask, how long it may take, what is counted, which headers go out."""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import logging
import re
import time
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from starlette.datastructures import Headers, MutableHeaders
from starlette.requests import ClientDisconnect

from vmnet_pipeline.serving.errors import RefusedError, describe_failure, make_error_response

if TYPE_CHECKING:
    from collections.abc import Sequence

    from starlette.types import ASGIApp, Message, Receive, Scope, Send

    from vmnet_pipeline.serving.config import ServeParams
    from vmnet_pipeline.serving.metrics import Metrics

logger = logging.getLogger(__name__)

COOKIE = "vmnet_session"
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


class ApiKey:
    """An optional key. A program sends it with every request; a browser trades it for a cookie."""

    def __init__(self, key: str | None) -> None:
        self._key = None if not key else key.encode()

    def accepts(self, given: str) -> bool:
        """Whether this is the key; takes the same time however wrong it is."""
        return self._key is None or hmac.compare_digest(_hash(given.encode()), _hash(self._key))

    def make_cookie(self) -> str:
        """What a browser gets in exchange; the key cannot be told from it."""
        return hmac.new(self._key or b"", b"session", hashlib.sha256).hexdigest()

    def allows(self, headers: Headers) -> bool:
        """Whether a request has the key, or its cookie."""
        if self._key is None:
            return True
        scheme, _, token = headers.get("authorization", "").partition(" ")
        given = headers.get("x-api-key", "") or (token if scheme.lower() == "bearer" else "")
        if given:
            return self.accepts(given)
        cookie = _find_cookie(headers.get("cookie", ""))
        return hmac.compare_digest(_hash(cookie.encode()), _hash(self.make_cookie().encode()))


def _find_cookie(header: str) -> str:
    """The value of our cookie, or nothing.

    `http.cookies` takes seconds for a header full of backslashes, and gives up at a cookie of somebody else that it
    does not understand.
    """
    cookies = (part.strip().partition("=") for part in header.split(";"))
    return next((value for name, _, value in cookies if name == COOKIE), "")


def _hash(text: bytes) -> bytes:
    return hashlib.sha256(text).digest()


class Guard:
    """ASGI layer around the whole application."""

    def __init__(self, app: ASGIApp, *, params: ServeParams, key: ApiKey, metrics: Metrics) -> None:
        self._app, self._params, self._key, self._metrics = app, params, key, metrics

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request, or pass it on."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        started, sender = time.monotonic(), _Sender(send)
        try:
            await self._answer(scope, _Receiver(receive, self._params), sender)
        finally:
            # `route` is set by the router, by some for a refused method too; what no route took is counted as one, so
            # that nobody can add series.
            route = _name_route(scope) if sender.status != 405 else "unknown"
            method = scope["method"] if route != "unknown" else "-"
            self._metrics.requests.labels(route, method, str(sender.status)).inc()
            self._metrics.seconds.labels(route).observe(time.monotonic() - started)

    async def _answer(self, scope: Scope, receive: Receive, sender: _Sender) -> None:
        refusal = self._find_refusal(scope, Headers(scope=scope))
        if refusal is not None:
            await refusal(scope, receive, sender)
            return
        is_media = scope["path"].endswith("/media")
        try:
            async with asyncio.timeout(self._params.media_timeout_s if is_media else self._params.request_timeout_s):
                await self._app(scope, receive, sender)
        except ClientDisconnect:
            return  # nobody is there to be answered
        except TimeoutError:
            logger.warning("A request to %s took too long", _name_route(scope))
            self._metrics.refused.labels("timeout").inc()
            if not sender.has_started:
                await make_error_response(504, "timeout", "This took too long.")(scope, receive, sender)
        except Exception as error:
            logger.error("A request to %s failed: %s", _name_route(scope), describe_failure(error))
            if not sender.has_started:
                sentence = "Something went wrong here; the log of the service says what."
                await make_error_response(500, "failed", sentence)(scope, receive, sender)

    def _find_refusal(self, scope: Scope, headers: Headers) -> Any:
        path = scope["path"]
        if not _is_known_host(headers.get("host", ""), self._params.allowed_hosts):
            return make_error_response(400, "unknown_host", "This service does not answer to that name.")
        if not path.startswith(GUARDED):
            return None
        origin = headers.get("origin")
        if origin and not _is_same_site(origin, headers.get("host", ""), self._params.allowed_origins):
            return make_error_response(403, "foreign_page", "Other pages may not use this service.")
        # By OPTIONS browsers ask whether they may send a key; nothing else answers to it.
        is_open = path == OPEN_PATH or scope["method"] == "OPTIONS"
        if not is_open and not self._key.allows(headers):
            return make_error_response(401, "no_key", "Give the API key, as `X-API-Key: KEY`.")
        return None


def _is_same_site(origin: str, host: str, allowed: Sequence[str]) -> bool:
    """A page of another site may send requests whose answers it cannot read; they are not worked on either."""
    if origin in allowed or "*" in allowed:
        return True
    try:
        return bool(host) and urlsplit(origin).netloc == host
    except ValueError:  # no address at all
        return False


def _is_known_host(host: str, allowed: Sequence[str]) -> bool:
    name = re.sub(r":\d*$", "", host).lower()
    return any(known in ("*", name) or (known[:2] == "*." and name.endswith(known[1:])) for known in allowed)


def _name_route(scope: Scope) -> str:
    return str(getattr(scope.get("route"), "path", "unknown"))


async def answer_overloaded(scope: Scope, receive: Receive, send: Send) -> None:
    """The application of a connection that is one too many."""
    if scope["type"] == "http":
        response = make_error_response(503, "overloaded", "There are too many connections; try again soon.", 1)
        response.headers["Connection"] = "close"
        await response(scope, receive, _Sender(send))


class _Receiver:
    """Passes a body on as long as it does not come more slowly than is allowed."""

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
            raise RefusedError(408, "slow_body", "The body of the request comes too slowly.") from error
        self._size += len(message.get("body", b""))
        self._is_whole = not message.get("more_body", False)
        return message


class _Sender:
    """Passes messages on; remembers the status, adds headers."""

    def __init__(self, send: Send) -> None:
        self._send, self.status, self.has_started = send, 499, False

    async def __call__(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self.status, self.has_started = message["status"], True
            headers = MutableHeaders(scope=message)
            for name, value in SECURITY_HEADERS.items():
                headers.setdefault(name, value)
            headers.setdefault("Cache-Control", "no-store")
        await self._send(message)
