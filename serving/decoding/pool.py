"""Processes that decode pictures, shared by the models and threads of a service."""

from __future__ import annotations

import threading
from importlib.resources import files
from queue import SimpleQueue
from typing import Protocol

import numpy as np

from models.common.errors import HalftoneError
from models.preprocess import transform as preprocess
from models.preprocess.decode import MAX_PIXELS
from models.preprocess.resample import Pixels
from models.spec import InputSpec
from serving.decoding.client import Decoder

_SAMPLE = InputSpec(size=224)


class Load(Protocol):
    """As `models.preprocess.transform.load`."""

    def __call__(self, data: bytes, spec: InputSpec, *, max_pixels: int = MAX_PIXELS) -> Pixels:
        """From a picture's bytes to the model's pixels."""


class Decoders:
    """Decodes as `models.preprocess.transform.load` does, in processes of its own; to be started first, asked from any thread.

    Args:
        count: processes, at least 1 where it is started.
    """

    def __init__(self, count: int) -> None:
        self._all = [Decoder() for _ in range(count)]
        self._free: SimpleQueue[Decoder] = SimpleQueue()
        self._started = False
        self._starting = threading.Lock()

    @property
    def pids(self) -> list[int]:
        """Numbers of the processes that are running."""
        return [decoder.pid for decoder in self._all if decoder.pid is not None]

    def start(self) -> None:
        """Start the processes, let each decode a photograph, and compare with what this process makes of it.

        Done once, whoever asks for it again.

        Raises:
            HalftoneError: one can't be started, does not work, or has other libraries.
        """
        with self._starting:
            if self._started:
                return
            try:
                self._start()
            except BaseException:
                self.close()
                raise
            for decoder in self._all:
                self._free.put(decoder)
            self._started = True

    def load(self, data: bytes, spec: InputSpec, *, max_pixels: int = MAX_PIXELS) -> Pixels:
        """As `models.preprocess.transform.load`, waiting until a process is free.

        Raises:
            ImageError: as there.
            MemoryError, RuntimeError: as `Decoder.load`.
        """
        decoder = self._free.get()
        try:
            return decoder.load(data, spec, max_pixels)
        finally:
            self._free.put(decoder)

    def close(self) -> None:
        """End the processes; to be called when nobody asks any more."""
        for decoder in self._all:
            decoder.close()

    def _start(self) -> None:
        for decoder in self._all:
            try:
                decoder.start()
            except OSError as error:
                raise _unusable(str(error)) from error
        photo = sample()
        expected = preprocess.load(photo, _SAMPLE)
        for decoder in self._all:
            try:
                pixels = decoder.load(photo, _SAMPLE, MAX_PIXELS)
            except Exception as error:
                raise _unusable(f"{type(error).__name__}: {error}") from error
            if not np.array_equal(pixels, expected):
                raise _unusable("one makes other pixels of a photograph than the service itself")


def sample() -> bytes:
    """A photograph of 451 x 300 pixels, as a JPEG file."""
    return (files("export") / "photos" / "cat.jpg").read_bytes()


def _unusable(reason: str) -> HalftoneError:
    return HalftoneError(
        f"the processes that decode pictures can't be used ({reason}): set HALFTONE_DECODERS=0, and the service's own "
        "threads decode"
    )
