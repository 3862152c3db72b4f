"""Close the listening socket without a reset: accept every established connection, and refuse every later one.

The kernel establishes connections before any process accepts them. Closing the socket resets those that no process has
accepted yet, and under load there are always some. On Linux a packet filter therefore drops new connections first;
once those in the queue are accepted, closing the socket resets none.
"""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import select
import socket
import struct
import sys
from collections.abc import Callable, Sequence

SETTLE = 0.25
"""Seconds for TCP handshakes under way: more than one round trip to any client."""

_POLL = 0.01
_MOST_SECONDS = 1.0
_SO_ATTACH_FILTER = 26


async def drain_and_close(
    listeners: Sequence[socket.socket], close: Callable[[], None], *, is_last: Callable[[], bool]
) -> None:
    """Accept what has connected, then close a listening socket for all processes that hold it.

    A client that connects meanwhile gets no response to its first packet, repeats the packet a second later, and is
    refused.

    Args:
        listeners: served by the running event loop until `close`.
        close: stops serving them; called once no connection waits to be accepted.
        is_last: called then too; returns True if no other worker accepts connections from the socket.
    """
    if all([_drop_new_connections(listener) for listener in listeners]):
        await asyncio.sleep(SETTLE)
    loop = asyncio.get_running_loop()
    end = loop.time() + _MOST_SECONDS
    while any(readable(listener.fileno()) for listener in listeners) and loop.time() < end:
        await asyncio.sleep(_POLL)
    # Closing alone would leave the supervisor's copy of the socket listening, and no process accepts from it.
    if is_last():
        for listener in listeners:
            with contextlib.suppress(OSError):
                listener.shutdown(socket.SHUT_RDWR)
    close()


def readable(descriptor: int) -> bool:
    """Return True if a socket has bytes, its end, or a connection to take."""
    poll = select.poll()
    poll.register(descriptor, select.POLLIN)
    return bool(poll.poll(0))


def _drop_new_connections(listener: socket.socket) -> bool:
    """Attach a packet filter that drops requests for new connections. Return False if the system has no such filter.

    The program is classic BPF on the TCP header: byte 13 holds the flags, and SYN without ACK requests a connection.
    """
    if sys.platform != "linux" or listener.family not in (socket.AF_INET, socket.AF_INET6):
        return False
    program = b"".join(
        struct.pack("HBBI", *instruction)
        for instruction in (
            (0x30, 0, 0, 13),  # load byte 13
            (0x54, 0, 0, 0x12),  # keep SYN and ACK of it
            (0x15, 0, 1, 0x02),  # SYN alone?
            (0x06, 0, 0, 0),  # yes: drop
            (0x06, 0, 0, 0xFFFFFFFF),  # no: pass
        )
    )
    memory = ctypes.create_string_buffer(program, len(program))
    # struct sock_fprog: number of instructions, and their address.
    argument = struct.pack("HP", len(program) // 8, ctypes.addressof(memory))
    try:
        listener.setsockopt(socket.SOL_SOCKET, _SO_ATTACH_FILTER, argument)
    except OSError:
        return False
    return True
