"""Limits of an HTTP connection: how many may be open, and how long a client may take to send and to read.

uvicorn waits without limit for a first byte, for the end of a request's head, and for a client that does not read its
response; and its own errors are plain text. `GuardedConnection` adds the limits to uvicorn's protocol.
"""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Callable
from http import HTTPStatus
from typing import TYPE_CHECKING, Any, ClassVar

from serving.http.errors import RequestError, out_of_resources, unavailable
from serving.http.response import failure
from serving.http.upgrade import head_without_offer

if TYPE_CHECKING:
    from starlette.types import ASGIApp, Receive, Scope, Send
    from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol as _Protocol
else:
    # `serving.process.bentoml_compat` has uvicorn's class, and checks that it has what is used here.
    _Protocol = object

MAX_HEADERS = 100
"""Most header fields of a request."""

MAX_HEAD = 2**16
"""Bytes of a request's head that may follow its first chunk."""

CHUNK = 2**18
"""Most bytes that arrive at once."""

MAX_PIPELINED = 64
"""Most requests of a connection that wait for the response to an earlier one."""

HEALTH = frozenset({"/livez", "/healthz", "/readyz", "/v2/health/live", "/v2/health/ready"})
"""Paths that need no API key, and that are served even when there are too many connections."""

_HEAD_SECONDS_OVER_LIMIT = 1.0
_CLOSE = {"Connection": "close"}


class GuardedConnection(_Protocol):
    """One connection with a client; a mixin for uvicorn's `HttpToolsProtocol`.

    `with_limits` sets the class variables.
    """

    most: ClassVar[int]
    """Connections that may be open at once."""

    head_seconds: ClassVar[float]
    """Seconds in which the head of a request must arrive."""

    body_seconds: ClassVar[float]
    """Seconds in which the rest of a body must arrive, and in which the client must read a response."""

    rejected: ClassVar[Callable[[str], None]]
    """Receives the error code of everything that is refused before it is a request."""

    over_limit: ClassVar[dict[GuardedConnection, None]]
    """The open connections over the limit, the oldest first."""

    has_surplus: ClassVar[Callable[[int], bool]] = staticmethod(lambda own: False)
    """Returns True if a worker with this number of connections should pass one on to another worker."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._over_limit = False
        self._in_body = False
        self._in_head = False
        self._head_bytes = 0
        self._head_error: RequestError | None = None
        self._offered_at: int | None = None
        self._read_timer: asyncio.TimerHandle | None = None
        self._write_timer: asyncio.TimerHandle | None = None
        self._close_timer: asyncio.TimerHandle | None = None

    @property
    def responding(self) -> bool:
        """True while a request is being processed."""
        return self.cycle is not None and not self.cycle.response_complete

    @property
    def idle(self) -> bool:
        """True while no request is being read or processed."""
        return not self.responding and not self._in_head

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Register the connection. Over the limit, respond 503 to its requests; over twice the limit, abort another.

        An orchestrator that can't connect for its probe would kill a healthy worker: there is always room for it.
        """
        super().connection_made(transport)
        resume = self.flow.resume_reading
        # uvicorn resumes after each response, and whenever a request waits for its client to leave: each time, another
        # chunk of requests would be queued, beyond all limits.
        self.flow.resume_reading = lambda: None if self.pipeline else resume()  # type: ignore[method-assign]
        count = len(self.connections)
        if count > 2 * self.most:
            self._make_room()
        if count > self.most:
            self._over_limit = True
            self.over_limit[self] = None
            # uvicorn has other types for ASGI than Starlette.
            self.app: Any = _only_health(self.app, type(self).rejected)
        self._expect_head()

    def connection_lost(self, exc: Exception | None) -> None:
        """Cancel the timers."""
        self.over_limit.pop(self, None)
        self._stop_read_timer()
        self._stop_write_timer()
        if self._close_timer is not None:
            self._close_timer.cancel()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Parse `data`; start a timer for what belongs to no running request."""
        was_in_body = self._in_body
        self._head_bytes += len(data)
        super().data_received(data)
        while self._offered_at is not None and not self.transport.is_closing():
            # The head once more without the offer of another protocol, by a parser that does not stop there, then what
            # follows it.
            data, self._offered_at = self._plain_head() + data[self._offered_at :], None
            self.parser: Any = type(self.parser)(self)
            # As uvicorn's.
            self.parser.set_dangerous_leniencies(lenient_data_after_close=True)
            super().data_received(data)
        if self.transport.is_closing():
            return
        if self._head_bytes > MAX_HEAD + CHUNK:
            self._refuse(_head_too_large())
            return
        if self.responding:
            return
        if self._in_body:
            # The response was sent before the end of the body: the rest is dropped, for a limited time.
            if self._read_timer is None:
                self._read_timer = self.loop.call_later(self.body_seconds, self.transport.abort)
            return
        # The end of a dropped body is not the start of a head.
        self._in_head = not was_in_body
        if self._read_timer is None:
            self._expect_head()

    def on_headers_complete(self) -> None:
        """Check the head of a request, which is complete, and start to process it."""
        if self._is_offered():
            return
        self._stop_read_timer()
        self._in_head, self._head_bytes, self._in_body = False, 0, True
        if len(self.headers) > MAX_HEADERS:
            self._head_error = _head_too_large()
            raise ValueError(self._head_error.message)
        if len(self.pipeline) >= MAX_PIPELINED:
            self._head_error = _too_many_pipelined()
            raise ValueError(self._head_error.message)
        super().on_headers_complete()
        if self.cycle is not None and not self.pipeline and type(self).has_surplus(len(self.connections)):
            # The client opens a new connection for its next request; another worker accepts it.
            self.cycle.keep_alive = False

    def on_body(self, body: bytes) -> None:
        """Receive a chunk of a request's body."""
        self._head_bytes = 0
        super().on_body(body)

    def on_message_complete(self) -> None:
        """Note that the body of a request is complete."""
        if self._is_offered():
            return
        self._in_body, self._head_bytes = False, 0
        self._stop_read_timer()
        super().on_message_complete()

    def _is_offered(self) -> bool:
        """Return True if the head that is parsed offers another protocol than WebSockets."""
        return self.parser.should_upgrade() and not self._should_upgrade()

    def _unsupported_upgrade_warning(self) -> None:
        """Note where the head ends; called by uvicorn for an offer that it does not take."""
        offer = sys.exception()
        assert offer is not None
        self._offered_at = int(offer.args[0])

    def _plain_head(self) -> bytes:
        return head_without_offer(self.parser.get_method(), self.url, self.parser.get_http_version(), self.headers)

    def send_400_response(self, msg: str) -> None:
        """Refuse what is not HTTP with a JSON error like every other one."""
        # uvicorn takes any exception while it parses for a bad request.
        cause = getattr(sys.exception(), "__context__", None)
        if isinstance(cause, MemoryError | OSError):
            self._refuse(out_of_resources(cause))
            return
        self._refuse(self._head_error or RequestError(400, "bad_http", "this is not a valid HTTP/1.1 request"))

    def pause_writing(self) -> None:
        """Start the timer of a client that reads its response more slowly than it is written."""
        super().pause_writing()
        self._write_timer = self._write_timer or self.loop.call_later(self.body_seconds, self.transport.abort)

    def resume_writing(self) -> None:
        """Stop that timer: the client has read most of its response."""
        self._stop_write_timer()
        super().resume_writing()

    def on_response_complete(self) -> None:
        """Limit the time in which the client must read the end of the response if the connection closes."""
        super().on_response_complete()
        self._limit_close()
        # The request that was started now, the last one, may need the rest of its body.
        if not self.transport.is_closing():
            self.flow.resume_reading()

    def timeout_keep_alive_handler(self) -> None:
        """Close the connection, which was unused for a while."""
        super().timeout_keep_alive_handler()
        self._limit_close()

    def shutdown(self) -> None:
        """Close the connection after the request that is being read or processed."""
        if not self._in_head:
            super().shutdown()
            self._limit_close()

    def close_after_response(self) -> None:
        """Send `Connection: close` with the response to the request that is being processed, if there is one."""
        if self.responding:
            self.cycle.keep_alive = False

    def finish(self) -> None:
        """Close the connection once the client has read what was written, within `body_seconds`."""
        self.transport.close()
        self._limit_close()

    def _limit_close(self) -> None:
        # The transport closes once the client has read everything, which it may never do.
        if self._close_timer is None and self.transport.is_closing():
            self._close_timer = self.loop.call_later(self.body_seconds, self.transport.abort)

    def _make_room(self) -> None:
        """Abort the oldest connection over the limit, preferably one without a running request."""
        silent = (each for each in self.over_limit if not each.responding)
        oldest = next(silent, None) or next(iter(self.over_limit), None)
        if oldest is not None:
            # Its end is reported later: until then, other connections may need room.
            del self.over_limit[oldest]
            type(self).rejected("too_many_connections")
            oldest.transport.abort()

    def _expect_head(self) -> None:
        seconds = min(self.head_seconds, _HEAD_SECONDS_OVER_LIMIT) if self._over_limit else self.head_seconds
        self._read_timer = self.loop.call_later(seconds, self._head_timed_out)

    def _head_timed_out(self) -> None:
        if not self._in_head:
            # The client expects no response; it could take one for that of a request on its way.
            self.finish()
            return
        message = f"no complete request head arrived within {self.head_seconds:g} s: send it at once"
        self._refuse(RequestError(408, "head_too_slow", message))

    def _stop_read_timer(self) -> None:
        if self._read_timer is not None:
            self._read_timer.cancel()
            self._read_timer = None

    def _stop_write_timer(self) -> None:
        if self._write_timer is not None:
            self._write_timer.cancel()
            self._write_timer = None

    def _refuse(self, error: RequestError) -> None:
        """Send an error and close; only close if the client would take the error for another request's response."""
        if self.transport.is_closing():
            return
        type(self).rejected(error.code)
        if self.responding and (self.pipeline or not self._in_body or self.cycle.response_started):
            self.transport.abort()
            return
        response = failure(error)
        headers = {"Content-Type": response.media_type.decode(), "Content-Length": str(len(response.content)), **_CLOSE}
        lines = [f"HTTP/1.1 {response.status} {HTTPStatus(response.status).phrase}"]
        lines += [f"{name}: {value}" for name, value in headers.items()]
        self.transport.write("\r\n".join([*lines, "", ""]).encode() + response.content)
        self.finish()


def with_limits(
    *, most: int, head_seconds: float, body_seconds: float, rejected: Callable[[str], None]
) -> type[GuardedConnection]:
    """Return a `GuardedConnection` with these limits; its class variables have the same names."""
    limits = {
        "most": most,
        "head_seconds": head_seconds,
        "body_seconds": body_seconds,
        "rejected": staticmethod(rejected),
        "over_limit": {},
    }
    return type("LimitedConnection", (GuardedConnection,), limits)


def _head_too_large() -> RequestError:
    message = f"the request's head is too large: at most {MAX_HEADERS} header fields and {MAX_HEAD // 1024} KiB"
    return RequestError(431, "head_too_large", message)


def _too_many_pipelined() -> RequestError:
    message = f"at most {MAX_PIPELINED} requests of a connection may wait for an earlier one: read the responses first"
    return RequestError(429, "too_many_pipelined", message)


def _only_health(app: ASGIApp, rejected: Callable[[str], None]) -> ASGIApp:
    """Return the application for a connection over the limit: `app` for the health paths, 503 for everything else."""

    async def health_or_503(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or scope["path"] in HEALTH:
            await app(scope, receive, send)
            return
        error = unavailable(
            "too_many_connections", "there are too many connections: use fewer, or try again", retry_after=1
        )
        error.headers = {**error.headers, **_CLOSE}
        rejected(error.code)
        await failure(error).send(send, head=scope["method"] == "HEAD")

    return health_or_503
