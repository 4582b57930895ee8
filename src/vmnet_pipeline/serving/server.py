"""Run the application with uvicorn and bound what a client can consume."""

from __future__ import annotations

import itertools
import logging
import sys
import time
from functools import partial
from http import HTTPStatus
from typing import TYPE_CHECKING, Any, cast

import httptools
import uvicorn
from uvicorn.protocols.http.flow_control import HIGH_WATER_LIMIT, FlowControl
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from vmnet_pipeline.serving.config import TRANSPORT
from vmnet_pipeline.serving.errors import write_bad_request
from vmnet_pipeline.serving.middleware import SECURITY_HEADERS, answer_when_full
from vmnet_pipeline.serving.pacing import TURN_S, Pacer
from vmnet_pipeline.serving.proxies import TrustedProxies

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Callable

    from fastapi import FastAPI

    from vmnet_pipeline.serving.config import ServeParams
    from vmnet_pipeline.serving.metrics import Metrics
    from vmnet_pipeline.serving.state import Service

logger = logging.getLogger(__name__)

LINGER_S = 30  # for requests in progress when the process is asked to end
EVICT_FACTOR = 2
"""Beyond this many times `max_connections`, a new connection replaces the one that has been idle longest."""
_RANKS = itertools.count(1)  # order in which connections became idle; clock times may be equal
SPARE_FILES = 256
MAX_HEAD_BYTES = 65_536  # of a head, trailers, or anything else without content
MAX_HEADERS = 256
SLICE_BYTES = 4096  # parsed at once: less than a turn, even in chunks of one byte
MIN_TAKEN_BYTES = 32_768
"""What a client must read of its responses within `write_timeout_s`; less than what resumes a sender."""


def configure_server(app: FastAPI, service: Service, host: str, port: int) -> uvicorn.Config:
    """Configure uvicorn: HTTP/1.1 only, strictly parsed, with heads of at most 64 KiB."""
    logging.getLogger("python_multipart").setLevel(logging.CRITICAL)  # it logs the content of forms
    params = service.params
    connection = partial(BoundedConnection, params=params, metrics=service.metrics, pacer=Pacer())
    return uvicorn.Config(
        cast("Any", TrustedProxies(app, params.trusted_proxies, params.root_path)),
        host=host,
        port=port,
        http=cast("Any", connection),
        ws="none",
        proxy_headers=False,  # `TrustedProxies` reads them
        access_log=False,
        server_header=False,
        timeout_graceful_shutdown=LINGER_S,
        log_level="warning",
    )


def allow_connections(limit: int) -> None:
    """Raise the limit of open files for this many connections, a media file each, and those being evicted."""
    if sys.platform == "win32":
        return
    import resource

    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = (EVICT_FACTOR + 1) * limit + SPARE_FILES
    if soft != resource.RLIM_INFINITY and soft < wanted:
        most = wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)
        resource.setrlimit(resource.RLIMIT_NOFILE, (most, hard))
        if most < wanted:
            logger.warning("The limit of %d open files (ulimit -n) is too low for max_connections=%d", most, limit)


class BoundedConnection(HttpToolsProtocol):
    """A connection that costs little, whatever its client does.

    The client must send its next request, and read its responses, in time. Its data is parsed in short turns with all
    others. Connections above the limit get a 503.
    """

    def __init__(self, *args: Any, params: ServeParams, metrics: Metrics, pacer: Pacer, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._params, self._metrics, self._pacer = params, metrics, pacer
        self._backlog = memoryview(b"")
        self._is_queued = self._ignores_input = self._is_in_head = False
        self._n_quiet = 0
        self._timers: dict[str, asyncio.TimerHandle] = {}
        self.idle_rank = 0

    # --- beginning and end

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Accept a connection, or have its requests refused."""
        super().connection_made(transport)
        self.flow = _Flow(transport, self._feed_later)
        self._watch()
        n_open, limit = len(self.connections), self._params.max_connections
        if n_open > EVICT_FACTOR * limit:
            self._evict()
        if n_open > limit:
            self._metrics.refused.labels("overloaded").inc()
            self.app = cast("Any", partial(answer_when_full, self.app))

    def _evict(self) -> None:
        """End the connection that has been idle longest: the new one may be a health check."""
        others = [cast("BoundedConnection", other) for other in self.connections]
        oldest = min((other for other in others if other.idle_rank), key=lambda other: other.idle_rank, default=self)
        oldest.idle_rank = 0  # it stays in `connections` until the loop has closed it
        self._metrics.refused.labels("dropped").inc()
        oldest.transport.abort()

    def connection_lost(self, exc: Exception | None) -> None:
        """Drop the timers and what was not parsed."""
        self._ignores_input, self._backlog = True, memoryview(b"")
        self._stop_timer("idle")
        self._stop_timer("write")
        super().connection_lost(exc)

    # --- reading, in turns

    def data_received(self, data: bytes) -> None:
        """Queue data for parsing."""
        self._unset_keepalive_if_required()
        if self._ignores_input:
            return
        self._backlog = memoryview(bytes(self._backlog) + data if len(self._backlog) else data)
        if not self._is_queued:
            self._feed()

    def _feed(self) -> None:
        """Parse for one turn; the rest waits for the next turn, or for the application."""
        self._is_queued = False
        began = time.thread_time()
        while len(self._backlog) and self._can_feed:
            piece, self._backlog = self._backlog[:SLICE_BYTES], self._backlog[SLICE_BYTES:]
            self._parse(piece)
            if time.thread_time() - began > TURN_S:
                break
        if len(self._backlog) and not self._ignores_input:
            self.flow.pause_reading()
            if self._can_feed:
                self._is_queued = True
                self._pacer.submit(self._feed)
        elif self._can_feed:
            self.flow.resume_reading()
        self._watch()

    @property
    def _can_feed(self) -> bool:
        is_full = self.cycle is not None and len(self.cycle.body) > HIGH_WATER_LIMIT
        return not (self._ignores_input or self.pipeline or is_full or self.transport.is_closing())

    def _feed_later(self) -> bool:
        """Whether data is left that comes before what the client sends next."""
        if not len(self._backlog):
            return False
        if not self._is_queued:
            self._is_queued = True
            self.loop.call_soon(self._feed)
        return True

    def _parse(self, piece: memoryview) -> None:
        self._n_quiet += len(piece)
        try:
            if self._n_quiet > MAX_HEAD_BYTES + SLICE_BYTES:
                raise httptools.HttpParserError("too long")
            self.parser.feed_data(piece)
        except httptools.HttpParserInvalidMethodError:
            self._refuse_request(HTTPStatus.METHOD_NOT_ALLOWED)
        except httptools.HttpParserError:
            self._refuse_request(HTTPStatus.BAD_REQUEST)
        except httptools.HttpParserUpgrade:  # answered without the upgrade; what follows is not HTTP
            self._backlog = memoryview(b"")
            self.cycle.keep_alive = False
            self._ignores_input = True

    def on_message_begin(self) -> None:
        """Begin a request."""
        super().on_message_begin()
        self.scope["extensions"] = {TRANSPORT: self.transport}  # type: ignore[dict-item]
        self._is_in_head = True

    def on_header(self, name: bytes, value: bytes) -> None:
        """Take a header; skip trailers."""
        if not self._is_in_head:
            return
        super().on_header(name, value)
        if len(self.headers) > MAX_HEADERS:
            raise ValueError("too many headers")

    def on_headers_complete(self) -> None:
        """Check the head and begin the response."""
        self._is_in_head, self._n_quiet = False, 0
        if self.parser.get_http_version() not in ("1.0", "1.1"):
            raise ValueError("another version of HTTP")
        if sum(name == b"host" for name, _ in self.headers) > 1:
            raise ValueError("two names of the host")
        super().on_headers_complete()
        if isinstance(self.app, partial):
            self.cycle.keep_alive = False

    def on_body(self, body: bytes) -> None:
        """Take a part of the body."""
        self._n_quiet = 0
        super().on_body(body)

    def on_message_complete(self) -> None:
        """End a request."""
        self._n_quiet = 0
        super().on_message_complete()

    def _refuse_request(self, status: HTTPStatus) -> None:
        """Send an error response to data that is not HTTP, and end the connection."""
        self._ignores_input, self._backlog = True, memoryview(b"")
        is_free = self.cycle is None or self.cycle.response_complete
        if not is_free:
            self.cycle.disconnected = True
            self.cycle.message_event.set()
        if is_free or not (self.cycle.response_started or self.pipeline):
            self.transport.write(write_bad_request(status, SECURITY_HEADERS))
            self._metrics.requests.labels("unknown", "-", str(status.value)).inc()
        self.pipeline.clear()
        self.transport.close()
        self._watch_writing()

    # --- writing, as long as the client takes it

    def pause_writing(self) -> None:
        """Watch a client that reads too slowly."""
        super().pause_writing()
        self._watch_writing()

    def resume_writing(self) -> None:
        """Stop watching a client that has caught up."""
        super().resume_writing()
        self._stop_timer("write")

    def on_response_complete(self) -> None:
        """Wait for the next request."""
        super().on_response_complete()
        self._watch()
        self._watch_writing()

    def _watch_writing(self) -> None:
        n_unsent = self.transport.get_write_buffer_size()
        if n_unsent == 0:
            self._stop_timer("write")
        elif "write" not in self._timers:
            check = partial(self._check_writing, n_unsent)
            self._timers["write"] = self.loop.call_later(self._params.write_timeout_s, check)

    def _check_writing(self, n_before: int) -> None:
        self._stop_timer("write")
        n_unsent = self.transport.get_write_buffer_size()
        if n_unsent and n_unsent > n_before - MIN_TAKEN_BYTES:
            self._metrics.refused.labels("slow_reader").inc()
            self.transport.abort()
        else:
            self._watch_writing()

    # --- waiting for the next request

    def _watch(self) -> None:
        is_working = self.cycle is not None and not self.cycle.response_complete
        self.idle_rank = 0 if is_working else self.idle_rank or next(_RANKS)
        if is_working or self.transport.is_closing():
            self._stop_timer("idle")
        elif "idle" not in self._timers:
            self._timers["idle"] = self.loop.call_later(self._params.head_timeout_s, self.transport.close)

    def _stop_timer(self, name: str) -> None:
        if name in self._timers:
            self._timers.pop(name).cancel()


class _Flow(FlowControl):
    """Resumes reading only when everything read before is parsed."""

    def __init__(self, transport: asyncio.Transport, feed_rest: Callable[[], bool]) -> None:
        super().__init__(transport)
        self._feed_rest = feed_rest

    def resume_reading(self) -> None:
        if not self._feed_rest():
            super().resume_reading()
