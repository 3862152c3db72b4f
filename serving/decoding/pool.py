"""Pool of decoding processes, shared by the models and threads of a service."""

from __future__ import annotations

import threading
from importlib.resources import files
from queue import SimpleQueue
from typing import Protocol

import numpy as np

from models.common.errors import HalftoneError
from models.preprocess import transform
from models.preprocess.decode import MAX_PIXELS
from models.preprocess.resample import Pixels
from models.spec import InputSpec
from serving.decoding.client import Decoder

_TEST_SPEC = InputSpec(size=224)


class LoadPixels(Protocol):
    """`models.preprocess.transform.load`, or a function in its place."""

    def __call__(self, data: bytes, spec: InputSpec, *, max_pixels: int = MAX_PIXELS) -> Pixels:
        """Convert an image file to the model's pixels."""


class Decoders:
    """`models.preprocess.transform.load` in a pool of processes; any thread may use it after `start`.

    Args:
        count: number of processes, at least 1 if the pool is started.
    """

    def __init__(self, count: int) -> None:
        self._decoders = [Decoder() for _ in range(count)]
        self._free: SimpleQueue[Decoder] = SimpleQueue()
        self._started = False
        self._starting = threading.Lock()

    def start(self) -> None:
        """Start the processes, and compare their pixels of a photograph with those of this process.

        Does nothing if they are started already.

        Raises:
            HalftoneError: a process can't be started, does not work, or has other versions of the libraries.
        """
        with self._starting:
            if self._started:
                return
            try:
                self._start()
            except BaseException:
                self.close()
                raise
            for decoder in self._decoders:
                self._free.put(decoder)
            self._started = True

    def load(self, data: bytes, spec: InputSpec, *, max_pixels: int = MAX_PIXELS) -> Pixels:
        """Wait for a free process, and run `models.preprocess.transform.load` in it.

        Raises:
            ImageError: the errors of that function.
            MemoryError, RuntimeError: as `Decoder.load`.
        """
        decoder = self._free.get()
        try:
            return decoder.load(data, spec, max_pixels)
        finally:
            self._free.put(decoder)

    def close(self) -> None:
        """End the processes; to be called when no thread uses them."""
        for decoder in self._decoders:
            decoder.close()

    def _start(self) -> None:
        for decoder in self._decoders:
            try:
                decoder.start()
            except OSError as error:
                raise _unusable(str(error)) from error
        photo = sample_photo()
        expected = transform.load(photo, _TEST_SPEC)
        for decoder in self._decoders:
            try:
                pixels = decoder.load(photo, _TEST_SPEC, MAX_PIXELS)
            except Exception as error:
                raise _unusable(f"{type(error).__name__}: {error}") from error
            if not np.array_equal(pixels, expected):
                raise _unusable("one makes other pixels of a photograph than the service itself")


def sample_photo() -> bytes:
    """Return a photograph of 451 x 300 pixels as a JPEG file."""
    return (files("export") / "photos" / "cat.jpg").read_bytes()


def _unusable(reason: str) -> HalftoneError:
    return HalftoneError(
        f"the processes that decode pictures can't be used ({reason}): set HALFTONE_DECODERS=0, and the service's own "
        "threads decode"
    )
