"""The server under the application: uvicorn, with bounds on what it leaves to the client."""

from __future__ import annotations

import json
from functools import partial
from typing import TYPE_CHECKING, Any, cast

import h11
import uvicorn
from uvicorn.protocols.http.h11_impl import H11Protocol

from vmnet_pipeline.serving.middleware import SECURITY_HEADERS, answer_overloaded

if TYPE_CHECKING:
    import asyncio

    from fastapi import FastAPI

    from vmnet_pipeline.serving.config import ServeParams
    from vmnet_pipeline.serving.metrics import Metrics
    from vmnet_pipeline.serving.state import Service

LINGER_S = 30
"""How long requests that are under way may take when the process is told to end."""
DROP_FACTOR = 2
"""Beyond so many times `max_connections`, a new connection is dropped without an answer."""


def configure_server(app: FastAPI, service: Service, host: str, port: int) -> uvicorn.Config:
    """What uvicorn runs: HTTP/1.1 only, strictly parsed, with heads of at most 64 KiB."""
    return uvicorn.Config(
        app,
        host=host,
        port=port,
        http=cast("Any", partial(BoundedConnection, params=service.params, metrics=service.metrics)),
        ws="none",
        access_log=False,
        server_header=False,
        timeout_graceful_shutdown=LINGER_S,
        log_level="warning",
    )


class BoundedConnection(H11Protocol):
    """A connection that has to get to its next request in time, and that is refused politely when there are too many.

    A client that sends the head of a request byte by byte, goes on sending after it was answered, or sends nothing,
    would otherwise keep its connection for ever.
    """

    def __init__(self, *args: Any, params: ServeParams, metrics: Metrics, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._params, self._refused = params, metrics.refused
        self._idle_timer: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Take a new connection, or refuse it."""
        super().connection_made(transport)
        n_open, limit = len(self.connections), self._params.max_connections
        if n_open > DROP_FACTOR * limit:
            self._refused.labels("dropped").inc()
            transport.abort()
            return
        if n_open > limit:
            self._refused.labels("overloaded").inc()
            self.app = cast("Any", answer_overloaded)
        self._watch()

    def data_received(self, data: bytes) -> None:
        """Pass on what the client sends."""
        super().data_received(data)
        self._watch()

    def on_response_complete(self) -> None:
        """Wait for the next request."""
        super().on_response_complete()
        self._watch()

    def connection_lost(self, exc: Exception | None) -> None:
        """Forget the timer."""
        self._stop_timer()
        super().connection_lost(exc)

    def send_400_response(self, msg: str) -> None:
        """Answer what is no HTTP in the form of every error; what is under way on this connection ends."""
        if self.cycle is not None and not self.cycle.response_complete:
            self.cycle.disconnected = True
            self.cycle.message_event.set()
        if self.conn.our_state in (h11.IDLE, h11.SEND_RESPONSE):
            body = json.dumps({"error": {"code": "http", "message": "This is no request of HTTP/1.1."}}).encode()
            own = {"content-type": "application/json", "content-length": str(len(body)), "connection": "close"}
            own["cache-control"] = "no-store"
            headers = [(name.lower(), value) for name, value in {**SECURITY_HEADERS, **own}.items()]
            for event in (h11.Response(status_code=400, headers=headers), h11.Data(data=body), h11.EndOfMessage()):
                self.transport.write(self.conn.send(event) or b"")
        self.transport.close()

    def _watch(self) -> None:
        is_working = self.cycle is not None and not self.cycle.response_complete
        if is_working or self.transport.is_closing():
            self._stop_timer()
        elif self._idle_timer is None:
            self._idle_timer = self.loop.call_later(self._params.head_timeout_s, self.transport.close)

    def _stop_timer(self) -> None:
        if self._idle_timer is not None:
            self._idle_timer.cancel()
            self._idle_timer = None
