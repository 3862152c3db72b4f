"""Client of one decoding process (`serving.decoding.worker`): start it, send it images, replace it if it ends."""

from __future__ import annotations

import contextlib
import functools
import json
import os
import signal
import socket
import subprocess
import sys
from pathlib import Path

import numpy as np

from models.preprocess import errors
from models.preprocess.errors import ImageError, TooComplexError
from models.preprocess.resample import Pixels
from models.spec import InputSpec
from serving.decoding import protocol
from serving.decoding.worker import MAX_SECONDS, OUT_OF_MEMORY

_SOURCE = Path(__file__).parents[2]
_EXIT_SECONDS = 5.0
HUNG_SECONDS = MAX_SECONDS + 5.0
"""Longest time that a process may take for an image: at `MAX_SECONDS` it ends by itself, unless it hangs."""
_TRIES = 2


class Decoder:
    """A process that decodes one image at a time; the first request starts it, unless `start` did."""

    def __init__(self) -> None:
        self._process: subprocess.Popen[bytes] | None = None
        self._socket: socket.socket | None = None

    def start(self) -> None:
        """Start the process; it imports its libraries while the caller goes on.

        Raises:
            OSError: the system can't start a process.
        """
        self._socket, theirs = protocol.pair(HUNG_SECONDS)
        with theirs:
            self._process = subprocess.Popen(
                # -P: a folder `models` in the current folder of the service must not replace ours.
                [sys.executable, "-P", "-m", "serving.decoding.worker", str(theirs.fileno())],
                pass_fds=[theirs.fileno()],
                stdin=subprocess.DEVNULL,
                # Ctrl-C must reach the service only, which finishes the accepted requests.
                start_new_session=True,
                env=_environment(),
            )

    def load(self, data: bytes, spec: InputSpec, max_pixels: int) -> Pixels:
        """Run `models.preprocess.transform.load` in the process.

        If the process ends meanwhile, it is replaced and the image is tried once more: the image need not be the cause.

        Raises:
            ImageError: the errors of that function; TooComplexError if the image exceeds the time limit.
            MemoryError: there is no memory for this image, or for a process.
            RuntimeError: the process ended on the image twice, or failed otherwise.
        """
        code: int | None = None
        for _ in range(_TRIES):
            try:
                reply = self._request(data, spec, max_pixels)
            except protocol.HungError:
                self._kill()
                raise _too_slow() from None
            except protocol.EndedError:
                code = self.close()
                if code == -signal.SIGALRM:
                    raise _too_slow() from None
                continue
            except BaseException:
                # The rest of this reply would be taken for the next image's.
                self._kill()
                raise
            if isinstance(reply, Exception):
                raise reply
            return reply
        if code in (-signal.SIGKILL, OUT_OF_MEMORY):
            raise MemoryError("a decoding process ended for want of memory")
        raise RuntimeError(f"a decoding process ended twice on a picture of {len(data)} bytes, with exit code {code}")

    def close(self) -> int | None:
        """End the process and return its exit code; None if there is no process."""
        process, self._process = self._process, None
        if self._socket is not None:
            self._socket.close()
            self._socket = None
        if process is None:
            return None
        with contextlib.suppress(subprocess.TimeoutExpired):
            return process.wait(_EXIT_SECONDS)
        process.kill()
        return process.wait()

    def _kill(self) -> None:
        if self._process is not None:
            self._process.kill()
        self.close()

    def _request(self, data: bytes, spec: InputSpec, max_pixels: int) -> Pixels | Exception:
        """Return the pixels, or the error of the image; any exception leaves the socket within a message."""
        if self._socket is None:
            try:
                self.start()
            except OSError as error:
                raise MemoryError(f"a decoding process can't be started: {error}") from error
        assert self._socket is not None
        encoded_spec, pixels = _encoded(spec), np.empty((spec.size, spec.size, 3), np.uint8)
        head = protocol.REQUEST.pack(len(encoded_spec), max_pixels, len(data))
        protocol.send(self._socket, [head, encoded_spec, data])
        outcome, length = protocol.REPLY.unpack(protocol.receive(self._socket, protocol.REPLY.size))
        if outcome == protocol.PIXELS:
            protocol.receive_into(self._socket, pixels.data.cast("B"))
            return pixels
        return _error(outcome, protocol.receive(self._socket, length).decode())


def _too_slow() -> TooComplexError:
    return TooComplexError(f"the picture takes over {MAX_SECONDS} s to decode: save it again as a JPEG")


@functools.cache
def _encoded(spec: InputSpec) -> bytes:
    return json.dumps(spec.to_dict()).encode()


def _error(outcome: int, message: str) -> Exception:
    if outcome == protocol.REFUSED:
        name, _, reason = message.partition("\n")
        kind: type[ImageError] = getattr(errors, name)
        return kind(reason)
    return MemoryError() if outcome == protocol.NO_MEMORY else RuntimeError(message)


def _environment() -> dict[str, str]:
    # In a Bento our source is in no folder that Python searches by default. The process needs no threads of OpenBLAS.
    path = os.pathsep.join(filter(None, [str(_SOURCE), os.environ.get("PYTHONPATH")]))
    return os.environ | {"PYTHONPATH": path, "OPENBLAS_NUM_THREADS": "1"}
