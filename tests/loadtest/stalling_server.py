"""A server that responds at once, except for one stall: `python stalling_server.py PORT STALL_SECONDS`.

The stall begins a second after the first request and delays all requests, as a garbage collection would.
"""

import asyncio
import sys
import time

from loadtest.peers.bare_socket import Constant

START = 1.0


class Stalling(Constant):
    first = 0.0
    stalled = False

    def data_received(self, data: bytes) -> None:
        Stalling.first = Stalling.first or time.monotonic()
        if not Stalling.stalled and time.monotonic() - Stalling.first > START:
            Stalling.stalled = True
            time.sleep(float(sys.argv[2]))
        super().data_received(data)


async def main() -> None:
    server = await asyncio.get_running_loop().create_server(Stalling, "127.0.0.1", int(sys.argv[1]))
    await server.serve_forever()


if __name__ == "__main__":
    asyncio.run(main())
