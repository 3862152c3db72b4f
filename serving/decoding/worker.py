"""A process that decodes pictures for the service, one after the other: `python -m serving.decoding.worker FD`.

The service starts it with one end of a socket and ends it by closing the other. It decodes with `models.preprocess`,
as everything does; a picture that a decoder crashes on, or that takes more memory than there is, ends this process
alone.
"""

from __future__ import annotations

import functools
import json
import signal
import socket
import sys

from models.preprocess.decode import ImageError
from models.preprocess.transform import load
from models.spec import InputSpec
from serving.decoding import protocol as wire
from serving.process.memory import settle
from serving.process.signals import ALL_STOP

TOO_LONG = 30
"""Seconds for a picture; the largest that are allowed by default take three."""

OUT_OF_MEMORY = 9
"""Exit code where there is no memory even for the file."""


def serve(end: socket.socket) -> None:
    """Answer requests until the service is gone.

    Args:
        end: connected to the service.

    Raises:
        wire.EndedError: it is gone.
    """
    while True:
        words, max_pixels, length = wire.REQUEST.unpack(wire.receive(end, wire.REQUEST.size))
        spec = _spec(bytes(wire.receive(end, words)))
        data = bytes(wire.receive(end, length))
        # Ends the process, whatever library it is in.
        signal.alarm(TOO_LONG)
        outcome, payload = _decoded(data, spec, max_pixels)
        signal.alarm(0)
        wire.send(end, [wire.REPLY.pack(outcome, len(payload)), payload])


def _decoded(data: bytes, spec: InputSpec, max_pixels: int) -> tuple[int, wire.Buffer]:
    try:
        return wire.PIXELS, load(data, spec, max_pixels=max_pixels).tobytes()
    except ImageError as error:
        return wire.REFUSED, f"{type(error).__name__}\n{error}".encode()
    except MemoryError:
        return wire.NO_MEMORY, b""
    # A panic of a library in Rust is no Exception.
    except BaseException as error:
        return wire.FAILED, f"{type(error).__name__}: {error}".encode()


@functools.cache
def _spec(words: bytes) -> InputSpec:
    return InputSpec.from_dict(json.loads(words))


def main(number: int) -> None:
    """Decode until the service closes its end, whatever signals are sent to all its processes."""
    for each in (signal.SIGINT, signal.SIGTERM, ALL_STOP):
        signal.signal(each, signal.SIG_IGN)
    settle()
    with socket.socket(fileno=number) as end:
        try:
            serve(end)
        except wire.EndedError:
            return
        except MemoryError:
            sys.exit(OUT_OF_MEMORY)


if __name__ == "__main__":
    main(int(sys.argv[1]))
