"""Request log: one line for each request as text or JSON, written by a separate thread.

Of what a client sends, a line has only a checked X-Request-Id: no other header, no path, no image.
"""

from __future__ import annotations

import json
import logging
import sys
import threading
import time
from collections import deque
from datetime import UTC, datetime
from typing import Any, Literal, TextIO

from serving.telemetry.request_context import Call

Format = Literal["text", "json"]

MOST_WAITING = 20_000
"""Requests that may wait for their line; if the reader of the log is slower, lines are dropped and counted."""

_INTERVAL = 0.1
_LOGGERS = (None, "bentoml", "circus", "uvicorn.error")
_encode = json.JSONEncoder(separators=(",", ":")).encode


class RequestLog:
    """Writes the lines of a tenth of a second at once, so that a slow reader never blocks a request.

    Args:
        form: `json` or `text`.
        stream: receives the lines; None: standard output.
    """

    def __init__(self, form: str, stream: TextIO | None = None) -> None:
        self._line = _json_line if form == "json" else _text_line
        self._stream = stream
        self._waiting: deque[tuple[float, Call, float]] = deque()
        self._dropped = 0
        self._wake = threading.Event()
        self._writing = threading.Lock()
        self._closed = False
        # The supervisor makes a log too, and forks to start its workers, which a process with threads must not do.
        self._writer: threading.Thread | None = None

    def start(self) -> None:
        """Start to write in a thread; the first line does the same, if the system still allows one by then."""
        if self._writer is None:
            self._writer = threading.Thread(target=self._work, name="request-log", daemon=True)
            self._writer.start()

    def add(self, call: Call, seconds: float) -> None:
        """Queue the line of a request that took `seconds`; to be called from the event loop's thread only."""
        if len(self._waiting) >= MOST_WAITING:
            self._dropped += 1
            return
        self._waiting.append((time.time(), call, seconds))
        if not self._wake.is_set():
            self._wake.set()
        self.start()

    def close(self) -> None:
        """Write the remaining lines."""
        self._closed = True
        self._wake.set()
        self._flush()

    def _work(self) -> None:
        while not self._closed:
            self._wake.wait()
            time.sleep(_INTERVAL)
            self._wake.clear()
            self._flush()

    def _flush(self) -> None:
        with self._writing:
            lines = []
            while self._waiting:
                lines.append(self._line(_fields(*self._waiting.popleft())))
            dropped, self._dropped = self._dropped, 0
            if dropped:
                lines.append(self._line({"time": _utc(time.time()), "event": "lines_dropped", "count": dropped}))
            if lines:
                self._write(lines)

    def _write(self, lines: list[str]) -> None:
        stream = self._stream or sys.stdout
        try:
            stream.write("".join(lines))
            stream.flush()
        # The disk is full or the reader is gone: requests are served anyway, and a later line counts the lost ones.
        except OSError:
            self._dropped += len(lines)


def report(level: Literal["error", "warning"], message: str) -> None:
    """Print one line for the operator on the standard error stream: `LEVEL: message`, or JSON if the log is JSON."""
    text = f"{level}: {message}"
    if any(isinstance(handler.formatter, JsonFormatter) for handler in logging.getLogger("bentoml").handlers):
        text = _encode({"time": _utc(time.time()), "event": "log", "level": level, "message": message})
    print(text, file=sys.stderr, flush=True)


class JsonFormatter(logging.Formatter):
    """Formats the records of `logging` as one line of JSON each, so that the whole log has one form."""

    def format(self, record: logging.LogRecord) -> str:
        """Return one JSON object without a line break."""
        fields = {
            "time": _utc(record.created),
            "event": "log",
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
        }
        if record.exc_info:
            fields["exception"] = self.formatException(record.exc_info)
        return _encode(fields)


def configure(form: str) -> None:
    """Set the form of the log handlers that BentoML has set up."""
    if form == "json":
        for name in _LOGGERS:
            for handler in logging.getLogger(name).handlers:
                handler.setFormatter(JsonFormatter())


def _fields(ended: float, call: Call, seconds: float) -> dict[str, Any]:
    return {
        "time": _utc(ended),
        "event": "request",
        "request_id": call.id,
        "route": call.route,
        "status": call.status,
        "milliseconds": round(seconds * 1000, 3),
        "model": call.model,
        "variant": call.variant,
        "items": call.items,
        "bytes": call.received,
        "error": call.error,
        "trace_id": call.trace,
    }


def _utc(seconds: float) -> str:
    """Return a Unix time in ISO 8601."""
    return datetime.fromtimestamp(seconds, UTC).isoformat(timespec="milliseconds")


def _json_line(fields: dict[str, Any]) -> str:
    return _encode(fields) + "\n"


def _text_line(fields: dict[str, Any]) -> str:
    """Return the time and `name=value` pairs, without the empty ones."""
    time_, *pairs = fields.items()
    return " ".join([time_[1], *(f"{name}={value}" for name, value in pairs if value != "")]) + "\n"
