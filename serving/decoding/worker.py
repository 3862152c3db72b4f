"""A decoding process of the service: `python -m serving.decoding.worker FD`, one image after the other.

The service starts it with one end of a socket and ends it by closing the other end. It decodes with
`models.preprocess`, as the service does. If an image crashes a decoder or takes more memory than there is, only this
process ends.
"""

from __future__ import annotations

import functools
import json
import signal
import socket
import sys
import warnings

from models.common.memory import release_memory
from models.preprocess.errors import ImageError
from models.preprocess.transform import load
from models.spec import InputSpec
from serving.decoding import protocol
from serving.process.signals import SERVICE_STOP

MAX_SECONDS = 30
"""Time limit for an image; the largest ones allowed by default take 3 s."""

OUT_OF_MEMORY = 9
"""Exit code if there is no memory even for the file."""


def serve(end: socket.socket) -> None:
    """Serve requests until the service closes its socket.

    Args:
        end: socket connected to the service.

    Raises:
        protocol.EndedError: the service closed its socket.
    """
    while True:
        spec_length, max_pixels, length = protocol.REQUEST.unpack(protocol.receive(end, protocol.REQUEST.size))
        spec = _spec(bytes(protocol.receive(end, spec_length)))
        data = bytes(protocol.receive(end, length))
        # The signal's default action ends the process, whatever library it is in.
        signal.alarm(MAX_SECONDS)
        outcome, payload = _decode(data, spec, max_pixels)
        signal.alarm(0)
        protocol.send(end, [protocol.REPLY.pack(outcome, len(payload)), payload])


def _decode(data: bytes, spec: InputSpec, max_pixels: int) -> tuple[int, protocol.Buffer]:
    try:
        return protocol.PIXELS, load(data, spec, max_pixels=max_pixels).tobytes()
    except ImageError as error:
        return protocol.REFUSED, f"{type(error).__name__}\n{error}".encode()
    except MemoryError:
        return protocol.NO_MEMORY, b""
    # A panic of a library in Rust is no Exception.
    except BaseException as error:
        return protocol.FAILED, f"{type(error).__name__}: {error}".encode()


@functools.cache
def _spec(encoded: bytes) -> InputSpec:
    return InputSpec.from_dict(json.loads(encoded))


def main(descriptor: int) -> None:
    """Decode until the service closes its socket; ignore the signals that stop the service's processes."""
    for each in (signal.SIGINT, signal.SIGTERM, SERVICE_STOP):
        signal.signal(each, signal.SIG_IGN)
    # Pillow's: the response says what is wrong with a picture.
    warnings.simplefilter("ignore")
    release_memory()
    with socket.socket(fileno=descriptor) as end:
        try:
            serve(end)
        except protocol.EndedError:
            return
        except MemoryError:
            sys.exit(OUT_OF_MEMORY)


if __name__ == "__main__":
    main(int(sys.argv[1]))
