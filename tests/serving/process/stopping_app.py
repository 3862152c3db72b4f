"""Run the worker's server without a model repeatedly.

`python -m tests.serving.process.stopping_app ROUNDS new|same SECONDS`; SECONDS is the lame-duck period. Each round
prints its port, serves until a signal, and prints `ended`. As in the service, a second copy of the listening socket
remains when the server has closed its own: with `new` it is closed then, with `same` the next round uses it.
"""

import asyncio
import json
import os
import random
import signal
import socket
import sys
import threading
from typing import Any

import uvicorn

from serving.http.connections import with_limits
from serving.process.shutdown import Server

LARGE = 8 * 2**20

retired = threading.Event()


async def app(scope: Any, receive: Any, send: Any) -> None:
    while (await receive()).get("more_body"):
        pass
    if scope["path"] == "/large":
        await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"%d" % LARGE)]})
        await send({"type": "http.response.body", "body": bytes(LARGE)})
        return
    await asyncio.sleep(random.uniform(0, 0.01))
    body = json.dumps({"ready": not retired.is_set()}).encode()
    headers = [(b"content-length", b"%d" % len(body))]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": body})


def listening() -> socket.socket:
    listener = socket.socket()
    listener.bind(("127.0.0.1", 0))
    listener.listen(2048)
    return listener


def serve(listener: socket.socket, lame_duck: float) -> None:
    retired.clear()
    print(listener.getsockname()[1], flush=True)
    config = uvicorn.Config(app, log_config=None, lifespan="off")
    connection = with_limits(most=1000, head_seconds=5, body_seconds=5, rejected=lambda code: None)
    server = Server(config, connection=connection, retire=retired.set, lame_duck=lame_duck)
    server.run(sockets=[socket.socket(fileno=os.dup(listener.fileno()))])
    print("ended", flush=True)


if __name__ == "__main__":
    # When uvicorn has ended, it raises the signals again that it received.
    signal.signal(signal.SIGTERM, lambda number, frame: None)
    lame_duck = float(sys.argv[3])
    shared = listening()
    for _ in range(int(sys.argv[1])):
        if sys.argv[2] == "same":
            serve(shared, lame_duck)
        else:
            with listening() as own:
                serve(own, lame_duck)
