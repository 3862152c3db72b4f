"""Messages between the service and a decoding process over a socket: a request with an image, a reply with its pixels.

A request is `REQUEST` (bytes of the input spec, ceiling on pixels, bytes of the file), the input spec as JSON, and the
file. A reply is `REPLY` (outcome, bytes that follow) and the pixels or the error.
"""

from __future__ import annotations

import socket
import struct
from collections.abc import Sequence
from typing import TypeAlias

Buffer: TypeAlias = bytes | bytearray | memoryview

REQUEST = struct.Struct("=IQQ")
REPLY = struct.Struct("=BI")

PIXELS, REFUSED, NO_MEMORY, FAILED = range(4)
"""Outcomes. `REFUSED`: the error's class, a line break, and its message; `FAILED`: a message."""


class EndedError(Exception):
    """The other side closed its socket."""


def pair() -> tuple[socket.socket, socket.socket]:
    """Return two connected sockets, with buffers so large that most images and pixels are sent in one call."""
    ends = socket.socketpair()
    for end in ends:
        # The system may limit the size.
        end.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 2**20)
    return ends


def send(end: socket.socket, parts: Sequence[Buffer]) -> None:
    """Send these parts one after the other.

    Raises:
        EndedError: the other side closed its socket.
    """
    views = [memoryview(part) for part in parts]
    try:
        sent = end.sendmsg(views)
        for view in views:
            if sent < len(view):
                end.sendall(view[sent:])
            sent = max(0, sent - len(view))
    except OSError as error:
        raise EndedError from error


def receive(end: socket.socket, length: int) -> bytearray:
    """Return exactly this many bytes.

    Raises:
        EndedError: the other side closed its socket.
    """
    data = bytearray(length)
    receive_into(end, memoryview(data))
    return data


def receive_into(end: socket.socket, view: memoryview) -> None:
    """Fill a buffer of bytes.

    Raises:
        EndedError: the other side closed its socket.
    """
    while len(view):
        try:
            count = end.recv_into(view, flags=socket.MSG_WAITALL)
        except OSError as error:
            raise EndedError from error
        if not count:
            raise EndedError
        view = view[count:]
