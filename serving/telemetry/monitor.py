"""ASGI middleware around the whole service: request ids, and what every request adds to the metrics and the log."""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable
from typing import Any

from serving.answer import Scope, Send
from serving.body import Receive
from serving.telemetry.log import RequestLog
from serving.telemetry.recorder import Recorder
from serving.telemetry.request import HEADER, Call, current, request_id
from serving.telemetry.routes import Routes

ASGIApp = Callable[[Scope, Receive, Send], Awaitable[None]]


class Monitor:
    """Observes requests without changing them; adds X-Request-Id to the answer.

    Args:
        app: what it observes.
        recorder: gets the times.
        routes: gives the labels.
        log: gets a line for each request; None: no lines.
    """

    def __init__(self, app: ASGIApp, *, recorder: Recorder, routes: Routes, log: RequestLog | None) -> None:
        self._app = app
        self._recorder = recorder
        self._routes = routes
        self._log = log

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass one connection on, and observe it where it is an HTTP request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        start = time.monotonic()
        call = Call(request_id(scope["headers"]), self._routes.label(scope["path"]))
        if self._recorder.spans:
            call.trace = self._recorder.spans.trace_id()
        token = current.set(call)

        answered = False

        async def observed(message: Any) -> None:
            nonlocal answered
            if message["type"] == "http.response.start":
                answered = True
                call.status = message["status"]
                message = {**message, "headers": [*message["headers"], (HEADER, call.id.encode())]}
            await send(message)

        try:
            await self._app(scope, receive, observed)
        except Exception:
            if not answered:
                # The server in front answers so when an application fails before it began to.
                call.status = 500
            raise
        finally:
            current.reset(token)
            self._over(call, time.monotonic() - start)

    def _over(self, call: Call, seconds: float) -> None:
        self._recorder.answered(call.route, call.status, seconds, model=call.model)
        if self._log is not None:
            self._log.add(call, seconds)
