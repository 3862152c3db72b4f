"""One decoding process, as the service sees it: started, asked, and replaced where it ends."""

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

from models.preprocess import transform as preprocess
from models.preprocess.decode import ImageError
from models.preprocess.resample import Pixels
from models.spec import InputSpec
from serving.decoding import protocol as wire
from serving.decoding.worker import OUT_OF_MEMORY, TOO_LONG

_SOURCE = Path(__file__).parents[2]
_PATIENCE = 5.0
_TRIES = 2


class Decoder:
    """A process that decodes one picture at a time. It is started when it is first asked, or by `start`."""

    def __init__(self) -> None:
        self._process: subprocess.Popen[bytes] | None = None
        self._end: socket.socket | None = None

    @property
    def pid(self) -> int | None:
        """Number of the process; None where there is none now."""
        return self._process.pid if self._process else None

    def start(self) -> None:
        """Start the process; it imports its libraries while this one goes on.

        Raises:
            OSError: the system doesn't start one.
        """
        self._end, theirs = wire.pair()
        with theirs:
            self._process = subprocess.Popen(
                # -P: a folder `models` where the service was started would be taken for ours.
                [sys.executable, "-P", "-m", "serving.decoding.worker", str(theirs.fileno())],
                pass_fds=[theirs.fileno()],
                stdin=subprocess.DEVNULL,
                # A Ctrl-C is for the service, which finishes what it accepted.
                start_new_session=True,
                env=_environment(),
            )

    def load(self, data: bytes, spec: InputSpec, max_pixels: int) -> Pixels:
        """`models.preprocess.transform.load` in the process.

        One that ends meanwhile is replaced, and the picture tried once more: something else may have ended it.

        Raises:
            ImageError: as there.
            MemoryError: there is none for this picture, or for a process.
            RuntimeError: the process ended on it twice, took longer than it may, or failed otherwise.
        """
        code: int | None = None
        for _ in range(_TRIES):
            try:
                told = self._told(data, spec, max_pixels)
            except wire.EndedError:
                code = self.close()
                if code == -signal.SIGALRM:
                    raise RuntimeError(f"a picture of {len(data)} bytes took over {TOO_LONG} s to decode") from None
                continue
            except BaseException:
                # What is still to come would be taken for the next picture's.
                self.close()
                raise
            if isinstance(told, Exception):
                raise told
            return told
        if code in (-signal.SIGKILL, OUT_OF_MEMORY):
            raise MemoryError("a decoding process ended for want of memory")
        raise RuntimeError(f"a decoding process ended twice on a picture of {len(data)} bytes, with exit code {code}")

    def close(self) -> int | None:
        """End the process, if there is one, and say with which exit code it ended."""
        process, self._process = self._process, None
        if self._end is not None:
            self._end.close()
            self._end = None
        if process is None:
            return None
        with contextlib.suppress(subprocess.TimeoutExpired):
            return process.wait(_PATIENCE)
        process.kill()
        return process.wait()

    def _told(self, data: bytes, spec: InputSpec, max_pixels: int) -> Pixels | Exception:
        """The pixels, or what the process says of the picture; whatever is raised leaves the socket in the middle."""
        if self._end is None:
            try:
                self.start()
            except OSError as error:
                raise MemoryError(f"a decoding process can't be started: {error}") from error
        assert self._end is not None
        words, pixels = _words(spec), np.empty((spec.size, spec.size, 3), np.uint8)
        wire.send(self._end, [wire.REQUEST.pack(len(words), max_pixels, len(data)), words, data])
        outcome, length = wire.REPLY.unpack(wire.receive(self._end, wire.REPLY.size))
        if outcome == wire.PIXELS:
            wire.receive_into(self._end, pixels.data.cast("B"))
            return pixels
        return _error(outcome, wire.receive(self._end, length).decode())


@functools.cache
def _words(spec: InputSpec) -> bytes:
    return json.dumps(spec.to_dict()).encode()


def _error(outcome: int, message: str) -> Exception:
    if outcome == wire.REFUSED:
        name, _, why = message.partition("\n")
        kind: type[ImageError] = getattr(preprocess, name)
        return kind(why)
    return MemoryError() if outcome == wire.NO_MEMORY else RuntimeError(message)


def _environment() -> dict[str, str]:
    # In a Bento our source is in no folder that Python looks into by itself. numpy's algebra has nothing to do there.
    path = os.pathsep.join(filter(None, [str(_SOURCE), os.environ.get("PYTHONPATH")]))
    return os.environ | {"PYTHONPATH": path, "OPENBLAS_NUM_THREADS": "1"}
