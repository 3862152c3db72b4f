"""The listening socket: shut so that every connection that was made is answered, and every later one is refused.

A connection is made by the kernel, before any process takes it. Closing the socket resets those that nobody has taken
yet, and there are always some where requests keep coming. On Linux a packet filter therefore turns new connections away
first, those on their way are taken, and then nothing is left that closing could reset.
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
"""Seconds for connections that are being made: more than one round trip to any client."""

_POLL = 0.01
_LONGEST = 1.0
_SO_ATTACH_FILTER = 26


async def shut(listeners: Sequence[socket.socket], close: Callable[[], None], *, is_last: Callable[[], bool]) -> None:
    """Shut a listening socket for all processes that hold it; what it has accepted is taken first.

    A client that comes meanwhile gets no answer to its first packet, repeats it a second later, and is refused.

    Args:
        listeners: still served by the running event loop.
        close: ends that; called once nothing waits to be taken.
        is_last: whether no other worker takes connections from it any more; called then too.
    """
    if all([_turn_away(listener) for listener in listeners]):
        await asyncio.sleep(SETTLE)
    loop = asyncio.get_running_loop()
    end = loop.time() + _LONGEST
    while any(readable(listener.fileno()) for listener in listeners) and loop.time() < end:
        await asyncio.sleep(_POLL)
    # Closing alone would leave the supervisor's copy of it listening, with nobody to take what it accepts.
    if is_last():
        for listener in listeners:
            with contextlib.suppress(OSError):
                listener.shutdown(socket.SHUT_RDWR)
    close()


def readable(descriptor: int) -> bool:
    """Whether a socket has something to take: bytes, its end, or a connection."""
    poll = select.poll()
    poll.register(descriptor, select.POLLIN)
    return bool(poll.poll(0))


def _turn_away(listener: socket.socket) -> bool:
    """Drop the packets that ask for a new connection; False where the system can't.

    The program is classic BPF on the TCP header: byte 13 holds the flags, and SYN without ACK asks for a connection.
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
    # struct sock_fprog: the number of instructions, and where they are.
    argument = struct.pack("HP", len(program) // 8, ctypes.addressof(memory))
    try:
        listener.setsockopt(socket.SOL_SOCKET, _SO_ATTACH_FILTER, argument)
    except OSError:
        return False
    return True
