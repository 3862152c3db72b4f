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
_TIMEVAL = struct.Struct("@ll")

PIXELS, REFUSED, NO_MEMORY, FAILED = range(4)
"""Outcomes. `REFUSED`: the error's class, a line break, and its message; `FAILED`: a message."""


class EndedError(Exception):
    """The other side closed its socket."""


class HungError(EndedError):
    """The other side did not send or read anything for the time that `pair` was given."""


def pair(seconds: float) -> tuple[socket.socket, socket.socket]:
    """Return two connected sockets, with buffers so large that most images and pixels are sent in one call.

    Args:
        seconds: longest time that the first one waits; the second one waits without limit.
    """
    ends = socket.socketpair()
    for end in ends:
        # The system may limit the size.
        end.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 2**20)
    # The system's time-outs: with Python's, every call would ask first whether the socket is ready.
    limit = _TIMEVAL.pack(int(seconds), int(seconds % 1 * 1e6))
    for option in (socket.SO_RCVTIMEO, socket.SO_SNDTIMEO):
        ends[0].setsockopt(socket.SOL_SOCKET, option, limit)
    return ends


def send(end: socket.socket, parts: Sequence[Buffer]) -> None:
    """Send these parts one after the other.

    Raises:
        EndedError: the other side closed its socket, or hangs.
    """
    views = [memoryview(part) for part in parts]
    try:
        sent = end.sendmsg(views)
        for view in views:
            if sent < len(view):
                end.sendall(view[sent:])
            sent = max(0, sent - len(view))
    except OSError as error:
        raise _lost(error) from error


def receive(end: socket.socket, length: int) -> bytearray:
    """Return exactly this many bytes.

    Raises:
        EndedError: the other side closed its socket, or hangs.
    """
    data = bytearray(length)
    receive_into(end, memoryview(data))
    return data


def receive_into(end: socket.socket, view: memoryview) -> None:
    """Fill a buffer of bytes.

    Raises:
        EndedError: the other side closed its socket, or hangs.
    """
    while len(view):
        try:
            count = end.recv_into(view, flags=socket.MSG_WAITALL)
        except OSError as error:
            raise _lost(error) from error
        if not count:
            raise EndedError
        view = view[count:]


def _lost(error: OSError) -> EndedError:
    return HungError() if isinstance(error, BlockingIOError) else EndedError()
