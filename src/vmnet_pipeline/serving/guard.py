"""What stands before every request: who may ask, how long it may take, what is counted, which headers go out."""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import logging
import time
from http.cookies import CookieError, SimpleCookie
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from starlette.datastructures import Headers, MutableHeaders
from starlette.requests import ClientDisconnect

from vmnet_pipeline.serving.replies import make_error_response

if TYPE_CHECKING:
    from collections.abc import Sequence

    from starlette.types import ASGIApp, Message, Receive, Scope, Send

    from vmnet_pipeline.serving.metrics import Metrics
    from vmnet_pipeline.serving.settings import ServeParams

logger = logging.getLogger(__name__)

COOKIE = "vmnet_session"
OPEN_PREFIX = "/v1/session"
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

    @property
    def is_set(self) -> bool:
        """Whether a key is asked for at all."""
        return self._key is not None

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
        try:
            morsel = SimpleCookie(headers.get("cookie", "")).get(COOKIE)
        except CookieError:
            return False
        value = "" if morsel is None else morsel.value
        return hmac.compare_digest(_hash(value.encode()), _hash(self.make_cookie().encode()))


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
            await self._answer(scope, receive, sender)
        finally:
            # `route` is set by the router; what no route took is counted as one, so that nobody can add series.
            route = getattr(scope.get("route"), "path", "unknown")
            method = scope["method"] if route != "unknown" else "-"
            self._metrics.requests.labels(route, method, str(sender.status)).inc()
            self._metrics.seconds.labels(route).observe(time.monotonic() - started)

    async def _answer(self, scope: Scope, receive: Receive, sender: _Sender) -> None:
        refusal = self._find_refusal(scope["path"], Headers(scope=scope))
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
            logger.warning("A request to %s took too long", getattr(scope.get("route"), "path", "unknown"))
            self._metrics.refused.labels("timeout").inc()
            if not sender.has_started:
                await make_error_response(504, "timeout", "This took too long.")(scope, receive, sender)
        except Exception:
            logger.exception("A request failed")
            if not sender.has_started:
                sentence = "Something went wrong here; the log of the service says what."
                await make_error_response(500, "failed", sentence)(scope, receive, sender)

    def _find_refusal(self, path: str, headers: Headers) -> Any:
        if not path.startswith(GUARDED):
            return None
        origin = headers.get("origin")
        if origin and not _is_same_site(origin, headers.get("host", ""), self._params.allowed_origins):
            return make_error_response(403, "foreign_page", "Other pages may not use this service.")
        if not path.startswith(OPEN_PREFIX) and not self._key.allows(headers):
            return make_error_response(401, "no_key", "Give the API key, as `X-API-Key: KEY`.")
        return None


def _is_same_site(origin: str, host: str, allowed: Sequence[str]) -> bool:
    """A page of another site may send requests whose answers it cannot read; they are not worked on either."""
    return origin in allowed or "*" in allowed or urlsplit(origin).netloc == host


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
