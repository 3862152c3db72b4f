"""Trace collector (OTLP over HTTP) that discards what it receives, so that a service can send its traces."""

from __future__ import annotations

import contextlib
import http.server
import threading
from collections.abc import Iterator


class Sink(http.server.ThreadingHTTPServer):
    """Responds 200 to every POST and counts them."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.posts = 0

    @property
    def url(self) -> str:
        """Address to send traces to."""
        return f"http://127.0.0.1:{self.server_address[1]}/v1/traces"


class _Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: Sink

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers.get("Content-Length", 0)))
        self.server.posts += 1
        self.send_response(200)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, format: str, *args: object) -> None:
        """Log nothing."""


@contextlib.contextmanager
def sink() -> Iterator[Sink]:
    """Run a collector until the block ends."""
    with Sink() as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        try:
            yield server
        finally:
            server.shutdown()
