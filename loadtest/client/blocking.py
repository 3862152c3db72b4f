"""HTTP/1.1 client on a blocking socket: one request, or one request after the other over a kept connection."""

from __future__ import annotations

import contextlib
import socket

from loadtest.client.http1 import Response, Responses, get

TIMEOUT_SECONDS = 30.0
_PIECE = 65536


class BlockingConnection:
    """A connection to a server; not for several threads at once.

    Args:
        port: of the server.
        host: name or address of the server.
        timeout: seconds that connecting, sending, or waiting for the next bytes may take.

    Raises:
        OSError: the server could not be reached.
    """

    def __init__(self, port: int, *, host: str = "127.0.0.1", timeout: float = TIMEOUT_SECONDS) -> None:
        self._socket = socket.create_connection((host, port), timeout=timeout)
        self._responses = Responses()
        self.closed = False

    def send(self, data: bytes) -> None:
        """Send a whole request.

        Raises:
            OSError: the server closed the connection; it is closed here too.
        """
        if data.startswith(b"HEAD "):
            self._responses = Responses(bodiless=True)
        try:
            self._socket.sendall(data)
        except OSError:
            self.close()
            raise

    def receive(self) -> Response:
        """Return the response to the last request.

        Raises:
            OSError: the connection ended before the response did, or what arrived is no HTTP; it is closed.
        """
        try:
            responses: list[Response] = []
            while not responses:
                data = self._socket.recv(_PIECE)
                if not data:
                    raise ConnectionResetError("the server closed the connection before the end of its response")
                responses = self._responses.feed(data)
        except OSError:
            self.close()
            raise
        if len(responses) > 1 or not responses[0].keep_alive:
            self.close()
        return responses[0]

    def close(self) -> None:
        """Close the connection."""
        self.closed = True
        self._socket.close()


class SyncClient:
    """A client with one connection, which is used for as long as the server keeps it; not for several threads.

    Args:
        port: of the server on 127.0.0.1.
        timeout: as for `BlockingConnection`.
    """

    def __init__(self, port: int, *, timeout: float = TIMEOUT_SECONDS) -> None:
        self._port, self._timeout = port, timeout
        self._connection: BlockingConnection | None = None

    def connection(self) -> BlockingConnection:
        """Return the open connection, or open one.

        Raises:
            OSError: the server could not be reached.
        """
        if self._connection is None or self._connection.closed:
            self._connection = BlockingConnection(self._port, timeout=self._timeout)
        return self._connection

    def request(self, data: bytes) -> Response:
        """Send a whole request and return the response.

        Raises:
            OSError: the server could not be reached, or gave no complete response.
        """
        connection = self.connection()
        connection.send(data)
        return connection.receive()

    def close(self) -> None:
        """Close the connection."""
        if self._connection is not None:
            self._connection.close()


def fetch(port: int, data: bytes, *, host: str = "127.0.0.1", timeout: float = TIMEOUT_SECONDS) -> Response:
    """Send a whole request over a new connection and return the response, whatever its status.

    Args: as for `BlockingConnection`.

    Raises:
        OSError: the server could not be reached, or gave no complete response.
    """
    with contextlib.closing(BlockingConnection(port, host=host, timeout=timeout)) as connection:
        connection.send(data)
        return connection.receive()


def status_of(port: int, path: str, *, timeout: float = TIMEOUT_SECONDS) -> int:
    """Return the HTTP status of a GET; 0 if there is no response."""
    try:
        return fetch(port, get(path), timeout=timeout).status
    except OSError:
        return 0
