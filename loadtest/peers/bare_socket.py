"""Server that does nothing, to measure a load generator's own limit: `python -m loadtest.peers.bare_socket PORT`.

It counts the bytes of each request's body and sends a constant response; no HTTP library is involved.
"""

from __future__ import annotations

import asyncio
import sys
from typing import cast

BODY = b'{"predictions": [{"label": "nothing", "index": 0, "probability": 1.0}]}'
ANSWER = b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: %d\r\n\r\n%s" % (len(BODY), BODY)
LENGTH = b"content-length:"


class Constant(asyncio.Protocol):
    """One connection."""

    def __init__(self) -> None:
        self._head = b""
        self._missing = 0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Keep the transport."""
        # A cast: uvloop's transports don't derive from asyncio's.
        self._transport = cast(asyncio.Transport, transport)

    def data_received(self, data: bytes) -> None:
        """Respond when the announced body is complete; requests are not pipelined."""
        if self._missing:
            self._missing -= len(data)
        else:
            head, separator, body = (self._head + data).partition(b"\r\n\r\n")
            if not separator:
                self._head = head
                return
            self._head = b""
            length = head.lower().partition(LENGTH)[2].partition(b"\r\n")[0]
            self._missing = int(length or 0) - len(body)
        if not self._missing:
            self._transport.write(ANSWER)


async def main(port: int) -> None:
    """Serve until the process is ended."""
    server = await asyncio.get_running_loop().create_server(Constant, "127.0.0.1", port)
    await server.serve_forever()


if __name__ == "__main__":
    if sys.platform == "win32":
        asyncio.run(main(int(sys.argv[1])))
    else:
        import uvloop

        uvloop.run(main(int(sys.argv[1])))
