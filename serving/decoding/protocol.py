"""What the service and a decoding process say to each other over a socket: one picture, then its pixels.

A request is `REQUEST` (bytes of the input's description, ceiling on pixels, bytes of the file), the description as
JSON, and the file. A reply is `REPLY` (how it went, bytes that follow) and the pixels or, where there are none, why.
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
"""How it went. `REFUSED`: the error's class and its message, with a line break between; `FAILED`: a message."""


class EndedError(Exception):
    """The other side is gone."""


def pair() -> tuple[socket.socket, socket.socket]:
    """Two connected ends, each with room for a photograph or its pixels, so that most are handed over in one go."""
    ends = socket.socketpair()
    for end in ends:
        # The system gives less where it allows less.
        end.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 2**20)
    return ends


def send(end: socket.socket, parts: Sequence[Buffer]) -> None:
    """Send these one after the other.

    Raises:
        EndedError: the other side is gone.
    """
    left = [memoryview(part) for part in parts]
    try:
        sent = end.sendmsg(left)
        for part in left:
            if sent < len(part):
                end.sendall(part[sent:])
            sent = max(0, sent - len(part))
    except OSError as error:
        raise EndedError from error


def receive(end: socket.socket, length: int) -> bytearray:
    """That many bytes.

    Raises:
        EndedError: the other side is gone.
    """
    data = bytearray(length)
    receive_into(end, memoryview(data))
    return data


def receive_into(end: socket.socket, view: memoryview) -> None:
    """Fill a buffer of bytes.

    Raises:
        EndedError: the other side is gone.
    """
    while len(view):
        try:
            count = end.recv_into(view, flags=socket.MSG_WAITALL)
        except OSError as error:
            raise EndedError from error
        if not count:
            raise EndedError
        view = view[count:]
