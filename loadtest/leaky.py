"""A server that keeps memory for every request, for `loadtest.soak` to find: `python -m loadtest.leaky PORT KIB`."""

from __future__ import annotations

import os
import sys
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import ClassVar


class Leaky(BaseHTTPRequestHandler):
    """Answers every POST with an empty JSON object, and keeps `size` bytes."""

    protocol_version = "HTTP/1.1"
    # An answer goes out in one piece: the second of two would wait for the client's acknowledgement, 40 ms.
    wbufsize = 4096
    size: ClassVar[int] = 0
    kept: ClassVar[list[bytes]] = []

    def do_POST(self) -> None:
        """Read, keep, answer."""
        self.rfile.read(int(self.headers["Content-Length"]))
        # Random bytes: pages of zeros would take no memory.
        self.kept.append(os.urandom(self.size))
        self.send_response(200)
        self.send_header("Content-Length", "2")
        self.end_headers()
        self.wfile.write(b"{}")

    def log_message(self, format: str, *args: object) -> None:
        """No line for a request."""


if __name__ == "__main__":
    Leaky.size = 1024 * int(sys.argv[2])
    ThreadingHTTPServer(("127.0.0.1", int(sys.argv[1])), Leaky).serve_forever()
