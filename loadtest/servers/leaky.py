"""Server that leaks KIB of memory per request, to test `loadtest.soak`: `python -m loadtest.servers.leaky PORT KIB`."""

from __future__ import annotations

import os
import sys
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import ClassVar


class Leaky(BaseHTTPRequestHandler):
    """Handler that responds to every POST with an empty JSON object and keeps `size` bytes."""

    protocol_version = "HTTP/1.1"
    # One write per response: a second one would wait 40 ms for the client's acknowledgement.
    wbufsize = 4096
    size: ClassVar[int] = 0
    kept: ClassVar[list[bytes]] = []

    def do_POST(self) -> None:
        """Read the body, keep memory and respond."""
        self.rfile.read(int(self.headers["Content-Length"]))
        # Random bytes: the kernel allocates no memory for pages of zeros.
        self.kept.append(os.urandom(self.size))
        self.send_response(200)
        self.send_header("Content-Length", "2")
        self.end_headers()
        self.wfile.write(b"{}")

    def log_message(self, format: str, *args: object) -> None:
        """Log nothing."""


if __name__ == "__main__":
    Leaky.size = 1024 * int(sys.argv[2])
    ThreadingHTTPServer(("127.0.0.1", int(sys.argv[1])), Leaky).serve_forever()
