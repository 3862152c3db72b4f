"""The worker's server without a model, run again and again: `python -m tests.serving.process.stopping_app ROUNDS new|same`.

Each round prints its port, serves until a signal, and prints `ended`. As in the service, another holder of the
listening socket is left when the server has closed it: with `new` it is closed then, with `same` the next round goes
on with it.
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

from serving.http import connections
from serving.process.shutdown import Server
from serving.settings import Settings

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


def serve(listener: socket.socket) -> None:
    retired.clear()
    print(listener.getsockname()[1], flush=True)
    config = uvicorn.Config(app, log_config=None, lifespan="off")
    server = Server(config, retire=retired.set, lame_duck=0.1)
    server.run(sockets=[socket.socket(fileno=os.dup(listener.fileno()))])
    print("ended", flush=True)


if __name__ == "__main__":
    connections.install(Settings(body_timeout=5, header_timeout=5), lambda code: None)
    # uvicorn raises the signals that it got again when it has ended.
    signal.signal(signal.SIGTERM, lambda number, frame: None)
    shared = listening()
    for _ in range(int(sys.argv[1])):
        if sys.argv[2] == "same":
            serve(shared)
        else:
            with listening() as own:
                serve(own)
