"""ASGI middleware around the whole service: request ids, and the metrics and log line of every request."""

from __future__ import annotations

import time
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from serving.telemetry.recorder import Recorder
from serving.telemetry.request_context import HEADER, Call, current, request_id
from serving.telemetry.request_log import RequestLog

if TYPE_CHECKING:
    from starlette.types import ASGIApp, Receive, Scope, Send

OTHER = "other"

_V2 = ("/v2", "/v2/health/live", "/v2/health/ready", "/v2/repository/index", "/v2/models/stats")
_V2_MODEL = ("", "/config", "/infer", "/ready", "/stats")
_MODELS = "/v2/models/"
_PAGES = "/models/"
_ADMIN_MODELS = "/admin/models"
_ADMIN_ACTIONS = ("load", "rollback", "canary", "promote")


class Monitor:
    """Records requests without changing them, and adds X-Request-Id and Server-Timing to the response.

    Args:
        app: the monitored application.
        recorder: receives the times.
        routes: has the labels.
        log: receives one line for each request; None: no lines.
    """

    def __init__(self, app: ASGIApp, *, recorder: Recorder, routes: Routes, log: RequestLog | None) -> None:
        self._app = app
        self._recorder = recorder
        self._routes = routes
        self._log = log

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a connection on, and record it if it is an HTTP request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        start = time.monotonic()
        call = Call(request_id(scope["headers"]), self._routes.label(scope["path"]))
        if self._recorder.spans:
            call.trace = self._recorder.spans.trace_id()
        token = current.set(call)

        started = False

        async def send_with_id(message: Any) -> None:
            nonlocal started
            if message["type"] == "http.response.start":
                started = True
                call.status = message["status"]
                headers = [*message["headers"], (HEADER, call.id.encode())]
                if timing := call.timing():
                    headers.append((b"server-timing", timing))
                message = {**message, "headers": headers}
            await send(message)

        try:
            await self._app(scope, receive, send_with_id)
        except Exception:
            if not started:
                # uvicorn responds with 500 if the application fails before it starts its response.
                call.status = 500
            raise
        finally:
            current.reset(token)
            self._record(call, time.monotonic() - start)

    def _record(self, call: Call, seconds: float) -> None:
        self._recorder.answered(call.route, call.status, seconds, model=call.model)
        if self._log is not None:
            self._log.add(call, seconds)


class Routes:
    """Maps paths to labels: a path or template that the service knows, or "other".

    Args:
        paths: paths that the service serves.
        folders: prefixes that end in a slash; all paths in a folder have one label.
    """

    def __init__(self, paths: Iterable[str], folders: Iterable[str] = ()) -> None:
        self._paths = frozenset({*paths, *_V2, _ADMIN_MODELS})
        self._folders = tuple(folders)

    def label(self, path: str) -> str:
        """Return the label of any path; it never has text from a client."""
        if path in self._paths:
            return path
        if path.startswith(_PAGES) and "/" not in path.removeprefix(_PAGES):
            return _PAGES + "{name}"
        if path.startswith(_MODELS):
            return _model_template(path)
        if path.startswith(_ADMIN_MODELS + "/"):
            return _admin_template(path)
        for folder in self._folders:
            if path.startswith(folder):
                return folder + "{file}"
        return OTHER


def _model_template(path: str) -> str:
    """Return the template of /v2/models/NAME[/versions/VERSION] and what may follow it, without the names."""
    _, *rest = path.removeprefix(_MODELS).split("/")
    template = _MODELS + "{name}"
    if rest[:1] == ["versions"] and len(rest) > 1:
        rest, template = rest[2:], template + "/versions/{version}"
    end = "".join(f"/{part}" for part in rest)
    return template + end if end in _V2_MODEL else OTHER


def _admin_template(path: str) -> str:
    """Return the template of /admin/models/NAME/ACTION, without the name."""
    _, _, action = path.removeprefix(_ADMIN_MODELS + "/").partition("/")
    return f"{_ADMIN_MODELS}/{{name}}/{action}" if action in _ADMIN_ACTIONS else OTHER
