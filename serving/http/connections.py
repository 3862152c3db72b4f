"""Connections: how many there may be, and how long one may take over what it sends and reads.

uvicorn waits for ever for a first byte, for the end of a request's head, and for a client that reads no answer; its own
refusals are plain text. `install` gives it a class of connections that does otherwise.
"""

from __future__ import annotations

import asyncio
import resource
from collections.abc import Awaitable, Callable
from typing import Any, ClassVar

from uvicorn.config import HTTP_PROTOCOLS
from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol

from serving.http.errors import RequestError, unavailable
from serving.http.response import failure
from serving.settings import Settings

Application = Callable[..., Awaitable[None]]

MAX_HEADERS = 100
"""Most header fields of a request."""

MAX_HEAD = 2**16
"""Bytes of a request's head that may come after its first piece."""

PIECE = 2**18
"""Most bytes that come at once."""

HEALTH = frozenset({"/livez", "/healthz", "/readyz", "/v2/health/live", "/v2/health/ready"})
"""Answered whoever asks, and also where there are too many connections."""

_CROWDED_HEAD_SECONDS = 1.0
_SPARE_FILES = 256
_CLOSE = {"Connection": "close"}


def install(settings: Settings, rejected: Callable[[str], None]) -> None:
    """Guard the connections of every server that uvicorn starts in this process from now on.

    The process may then open as many files as the connections may need.

    Args:
        settings: `connections`, `header_timeout` and `body_timeout` count.
        rejected: is told the error code of what is refused here, before it is a request.
    """
    _allow_files(2 * settings.connections + _SPARE_FILES)
    limits = {
        "most": settings.connections,
        "head_seconds": settings.header_timeout,
        "body_seconds": settings.body_timeout,
        "rejected": staticmethod(rejected),
    }
    # BentoML makes the `uvicorn.Config` itself and leaves the protocol at "auto"; a class is taken as it is.
    HTTP_PROTOCOLS["auto"] = type("Connection", (GuardedProtocol,), limits)  # type: ignore[assignment]


class GuardedProtocol(HttpToolsProtocol):
    """One connection with a client."""

    most: ClassVar[int]
    head_seconds: ClassVar[float]
    body_seconds: ClassVar[float]
    rejected: ClassVar[Callable[[str], None]]
    too_many: ClassVar[Callable[[int], bool]] = staticmethod(lambda own: False)
    """Whether a worker with so many connections should pass one on to another worker."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._crowded = False
        self._in_body = False
        self._head_begun = False
        self._loose = 0
        self._problem: RequestError | None = None
        self._reading: asyncio.TimerHandle | None = None
        self._writing: asyncio.TimerHandle | None = None
        self._ending: asyncio.TimerHandle | None = None

    @property
    def reading_head(self) -> bool:
        """Whether a part of a request's head has come, and not the rest."""
        return self._head_begun

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Begin; one of too many is told so once it has asked, and one of twice too many is cut at once."""
        super().connection_made(transport)
        count = len(self.connections)
        if count > 2 * self.most:
            type(self).rejected("too_many_connections")
            transport.abort()
            return
        if count > self.most:
            self._crowded = True
            self.app = _only_health(self.app, type(self).rejected)
        self._await_head()

    def connection_lost(self, exc: Exception | None) -> None:
        """End."""
        self._stop_reading()
        self._stop_writing()
        if self._ending is not None:
            self._ending.cancel()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Take what came; what belongs to no running request must get somewhere in time."""
        was_in_body = self._in_body
        self._loose += len(data)
        super().data_received(data)
        if self.transport.is_closing():
            return
        if self._loose > MAX_HEAD + PIECE:
            self._refuse(_head_too_large())
            return
        if self._answering():
            return
        if self._in_body:
            # It was answered before its end; what is still to come is dropped, but not for ever.
            if self._reading is None:
                self._reading = self.loop.call_later(self.body_seconds, self.transport.abort)
            return
        # The end of a body that nobody waited for begins no head.
        self._head_begun = not was_in_body
        if self._reading is None:
            self._await_head()

    def on_headers_complete(self) -> None:
        """A request's head is whole."""
        self._stop_reading()
        self._head_begun, self._loose, self._in_body = False, 0, True
        if len(self.headers) > MAX_HEADERS:
            self._problem = _head_too_large()
            raise ValueError(self._problem.message)
        super().on_headers_complete()
        if self.cycle is not None and not self.pipeline and type(self).too_many(len(self.connections)):
            # The client's next request makes a new connection, which the other worker takes.
            self.cycle.keep_alive = False

    def on_body(self, body: bytes) -> None:
        """A piece of a request's body."""
        self._loose = 0
        super().on_body(body)

    def on_message_complete(self) -> None:
        """A request's body is whole."""
        self._in_body, self._loose = False, 0
        self._stop_reading()
        super().on_message_complete()

    def send_400_response(self, msg: str) -> None:
        """Refuse what is not HTTP as everything else is refused."""
        self._refuse(self._problem or RequestError(400, "bad_http", "this is no valid HTTP/1.1 request"))

    def pause_writing(self) -> None:
        """The client reads its answer more slowly than it is written."""
        super().pause_writing()
        self._writing = self._writing or self.loop.call_later(self.body_seconds, self.transport.abort)

    def resume_writing(self) -> None:
        """The client has read most of its answer."""
        self._stop_writing()
        super().resume_writing()

    def on_response_complete(self) -> None:
        """A request is answered; the client may still have to read it."""
        super().on_response_complete()
        self._end_in_time()

    def timeout_keep_alive_handler(self) -> None:
        """Nothing was asked for a while."""
        super().timeout_keep_alive_handler()
        self._end_in_time()

    def shutdown(self) -> None:
        """End when what is read or answered now is over."""
        if not self.reading_head:
            super().shutdown()
            self._end_in_time()

    def finish(self) -> None:
        """Close as soon as the client has read what was written, for which it has as long as for sending a body."""
        self.transport.close()
        self._end_in_time()

    def _end_in_time(self) -> None:
        # Closing waits for the client to read; it need not.
        if self._ending is None and self.transport.is_closing():
            self._ending = self.loop.call_later(self.body_seconds, self.transport.abort)

    def _answering(self) -> bool:
        return self.cycle is not None and not self.cycle.response_complete

    def _await_head(self) -> None:
        seconds = min(self.head_seconds, _CROWDED_HEAD_SECONDS) if self._crowded else self.head_seconds
        self._reading = self.loop.call_later(seconds, self._head_is_late)

    def _head_is_late(self) -> None:
        if not self._head_begun:
            # Nobody waits for an answer; one could be taken for that of a request on its way.
            self.finish()
            return
        self._refuse(
            RequestError(
                408, "head_too_slow", f"no whole request head came within {self.head_seconds:g} s: send it at once"
            )
        )

    def _stop_reading(self) -> None:
        if self._reading is not None:
            self._reading.cancel()
            self._reading = None

    def _stop_writing(self) -> None:
        if self._writing is not None:
            self._writing.cancel()
            self._writing = None

    def _refuse(self, error: RequestError) -> None:
        """Answer and close, without a request; only close where it would be taken for the answer to another one."""
        if self.transport.is_closing():
            return
        type(self).rejected(error.code)
        if self._answering() and (self.pipeline or not self._in_body or self.cycle.response_started):
            self.transport.abort()
            return
        answer = failure(error)
        headers = {"Content-Type": answer.media_type.decode(), "Content-Length": str(len(answer.content)), **_CLOSE}
        lines = "".join(f"{name}: {value}\r\n" for name, value in headers.items())
        self.transport.write(STATUS_LINE[answer.status] + lines.encode() + b"\r\n" + answer.content)
        self.finish()


def _head_too_large() -> RequestError:
    message = f"the request's head is too large: at most {MAX_HEADERS} header fields and {MAX_HEAD // 1024} KiB"
    return RequestError(431, "head_too_large", message)


def _only_health(app: Application, rejected: Callable[[str], None]) -> Application:
    """The application as it is for a connection that is one of too many."""

    async def crowded(scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] != "http" or scope["path"] in HEALTH:
            await app(scope, receive, send)
            return
        error = unavailable(
            "too_many_connections", "there are too many connections: use fewer, or try again", retry_after=1
        )
        error.headers = {**error.headers, **_CLOSE}
        rejected(error.code)
        await failure(error).send(send, head=scope["method"] == "HEAD")

    return crowded


def _allow_files(count: int) -> None:
    """Raise the process's own limit of open files as far as it may be raised."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = count if hard == resource.RLIM_INFINITY else min(count, hard)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
