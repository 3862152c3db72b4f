"""Send requests one after the other: directly to the ASGI application, and over a socket to a real HTTP server."""

from __future__ import annotations

import asyncio
import contextlib
import http.client
import socket
import threading
import time
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

import uvicorn
from uvicorn.loops.auto import auto_loop_factory

from models.common.errors import HalftoneError

if TYPE_CHECKING:
    from starlette.types import ASGIApp

PATH = "/classify"
_START_SECONDS = 10.0


def in_process(app: ASGIApp, image: bytes, requests: int) -> bytes:
    """Call the application without a server; return the body of its last response.

    Args:
        app: the ASGI application.
        image: body of every request.
        requests: number of requests.

    Raises:
        HalftoneError: the status of a response is not 200.
    """
    with asyncio.Runner(loop_factory=auto_loop_factory()) as runner:
        return runner.run(_call(app, image, requests))


async def _call(app: ASGIApp, image: bytes, requests: int) -> bytes:
    headers = [(b"content-type", b"image/jpeg"), (b"content-length", str(len(image)).encode())]
    scope = {"type": "http", "method": "POST", "path": PATH, "query_string": b"", "headers": headers}
    answer = b""
    for _ in range(requests):
        sent: list[Any] = []
        bodies = iter([{"type": "http.request", "body": image, "more_body": False}])

        async def receive(bodies: Iterator[Any] = bodies) -> Any:
            message = next(bodies, None)
            # The client stays connected: no further message comes.
            return message if message is not None else await asyncio.Event().wait()

        async def send(message: Any, sent: list[Any] = sent) -> None:
            sent.append(message)

        await app(scope, receive, send)
        answer = sent[1]["body"]
        _check(sent[0]["status"], answer)
    return answer


def over_socket(app: ASGIApp, image: bytes, requests: int) -> list[float]:
    """Send requests to a server on 127.0.0.1 over one connection that is kept open.

    Args:
        app: the ASGI application, served by uvicorn with uvloop and httptools as under BentoML.
        image: body of every request.
        requests: number of requests.

    Returns:
        Seconds of each request, from the first byte sent to the last received.

    Raises:
        HalftoneError: the status of a response is not 200, or the server did not start.
    """
    seconds = []
    with _server(app) as port, contextlib.closing(http.client.HTTPConnection("127.0.0.1", port)) as connection:
        connection.connect()
        # Header and body are two packets; the second must not wait for the acknowledgement of the first.
        connection.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        for _ in range(requests):
            start = time.perf_counter()
            connection.request("POST", PATH, image, {"Content-Type": "image/jpeg"})
            response = connection.getresponse()
            answer = response.read()
            seconds.append(time.perf_counter() - start)
            _check(response.status, answer)
    return seconds


@contextlib.contextmanager
def _server(app: ASGIApp) -> Iterator[int]:
    """Yield the port of a server that runs in a thread until the block ends."""
    server = uvicorn.Server(uvicorn.Config(app, lifespan="off", log_level="warning", access_log=False))
    with socket.create_server(("127.0.0.1", 0)) as listener:
        thread = threading.Thread(target=server.run, args=([listener],), name="server")
        thread.start()
        try:
            _wait_until_started(server)
            yield int(listener.getsockname()[1])
        finally:
            server.should_exit = True
            thread.join()


def _wait_until_started(server: uvicorn.Server) -> None:
    end = time.monotonic() + _START_SECONDS
    while not server.started:
        if time.monotonic() > end:
            raise HalftoneError(f"the HTTP server did not start within {_START_SECONDS:g} s")
        time.sleep(0.01)


def _check(status: int, answer: Sequence[int]) -> None:
    if status != 200:
        raise HalftoneError(f"the service responded {status}: {bytes(answer).decode(errors='replace')[:300]}")
