"""Requests, one after the other: straight into the ASGI application, and over a real socket to a real HTTP server."""

from __future__ import annotations

import asyncio
import contextlib
import http.client
import socket
import threading
import time
from collections.abc import Iterator, Sequence
from typing import Any

import uvicorn
from uvicorn.loops.auto import auto_loop_factory

from models.common.errors import HalftoneError
from serving.profile.stages import ASGIApp

PATH = "/classify"
_START_SECONDS = 10.0


def in_process(app: ASGIApp, picture: bytes, requests: int) -> bytes:
    """Call the application without a server; returns its last answer.

    Args:
        app: the ASGI application.
        picture: body of every request.
        requests: how many.

    Raises:
        HalftoneError: an answer is no 200.
    """
    with asyncio.Runner(loop_factory=auto_loop_factory()) as runner:
        return runner.run(_call(app, picture, requests))


async def _call(app: ASGIApp, picture: bytes, requests: int) -> bytes:
    headers = [(b"content-type", b"image/jpeg"), (b"content-length", str(len(picture)).encode())]
    scope = {"type": "http", "method": "POST", "path": PATH, "query_string": b"", "headers": headers}
    answer = b""
    for _ in range(requests):
        sent: list[Any] = []
        bodies = iter([{"type": "http.request", "body": picture, "more_body": False}])

        async def receive(bodies: Iterator[Any] = bodies) -> Any:
            message = next(bodies, None)
            # The client stays: there is nothing more to hear of it.
            return message if message is not None else await asyncio.Event().wait()

        async def send(message: Any, sent: list[Any] = sent) -> None:
            sent.append(message)

        await app(scope, receive, send)
        answer = sent[1]["body"]
        _check(sent[0]["status"], answer)
    return answer


def over_socket(app: ASGIApp, picture: bytes, requests: int) -> list[float]:
    """Ask a server on 127.0.0.1 over one connection that is kept open.

    Args:
        app: the ASGI application, served by uvicorn with uvloop and httptools as under BentoML.
        picture: body of every request.
        requests: how many.

    Returns:
        Seconds of each, from the first byte sent to the last received.

    Raises:
        HalftoneError: an answer is no 200, or the server did not start.
    """
    seconds = []
    with _server(app) as port, contextlib.closing(http.client.HTTPConnection("127.0.0.1", port)) as connection:
        connection.connect()
        # Header and body are two packets, and the second must not wait for the first one's acknowledgement.
        connection.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        for _ in range(requests):
            start = time.perf_counter()
            connection.request("POST", PATH, picture, {"Content-Type": "image/jpeg"})
            response = connection.getresponse()
            answer = response.read()
            seconds.append(time.perf_counter() - start)
            _check(response.status, answer)
    return seconds


@contextlib.contextmanager
def _server(app: ASGIApp) -> Iterator[int]:
    """The port of a server that runs in a thread until the block ends."""
    server = uvicorn.Server(uvicorn.Config(_untyped(app), lifespan="off", log_level="warning", access_log=False))
    with socket.create_server(("127.0.0.1", 0)) as listener:
        thread = threading.Thread(target=server.run, args=([listener],), name="server")
        thread.start()
        try:
            _wait_until_started(server)
            yield int(listener.getsockname()[1])
        finally:
            server.should_exit = True
            thread.join()


def _untyped(app: Any) -> Any:
    """Our own description of ASGI is simpler than uvicorn's."""
    return app


def _wait_until_started(server: uvicorn.Server) -> None:
    end = time.monotonic() + _START_SECONDS
    while not server.started:
        if time.monotonic() > end:
            raise HalftoneError(f"the HTTP server did not start within {_START_SECONDS:g} s")
        time.sleep(0.01)


def _check(status: int, answer: Sequence[int]) -> None:
    if status != 200:
        raise HalftoneError(f"the service answered {status}: {bytes(answer).decode(errors='replace')[:300]}")
