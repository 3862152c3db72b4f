"""Whether a model's pictures are decoded in the threads that run it, or in processes beside them.

The threads of one process share Python's lock, and decoding holds it for a third of its time: however many cores there
are, one process decodes some three times what a single thread does. Where model and cores would do more, processes
decode, and the threads only hand over bytes and pixels; where they would not, that hand-over is time lost
(`python -m serving.decoding.benchmark`).
"""

from __future__ import annotations

import logging
import time

from models.common.errors import HalftoneError
from models.preprocess import transform as preprocess
from models.spec import InputSpec
from serving.decoding.pool import Decoders, Load, sample
from serving.settings import Settings

logger = logging.getLogger("bentoml.halftone")

LOCKED = 0.31
"""Share of the time of decoding and resizing in which Python's lock is held: a profile's figure, of photographs of
500 x 375 pixels."""

_ROOM = 0.6
"""Share of the lock's time that decoding may take: the requests, and the threads among each other, need it too."""

_TRIES = 5


def decoding(name: str, decoders: Decoders, settings: Settings, spec: InputSpec, rate: float) -> Load:
    """What decodes a model's pictures, started and tried.

    Args:
        name: of the model, for the log.
        decoders: the service's processes.
        settings: of the service; they may decide it.
        spec: the model's input.
        rate: pictures a second that the model runs, with nothing else to be done.

    Raises:
        HalftoneError: the settings ask for processes, and they can't be used.
    """
    if settings.decoders == 0:
        return preprocess.load
    if settings.decoders > 0:
        decoders.start()
        return decoders.load
    share = lock_share(_seconds(spec), settings.busy_threads, rate)
    if share <= _ROOM:
        return preprocess.load
    try:
        decoders.start()
    except HalftoneError as error:
        logger.warning("%s: its own threads decode: %s", name, error)
        return preprocess.load
    logger.info("%s: %d processes decode", name, settings.decoder_processes)
    return decoders.load


def lock_share(seconds: float, threads: int, rate: float) -> float:
    """Share of the time, over 1 where there is not enough, that Python's lock would be held by threads that decode.

    Args:
        seconds: to decode and resize one picture.
        threads: that decode and run the model, each on a core.
        rate: pictures a second that the model runs, with nothing else to be done.
    """
    return LOCKED * seconds / (seconds / threads + 1 / rate)


def _seconds(spec: InputSpec) -> float:
    """Seconds that the sample photograph takes from bytes to pixels."""
    photo, least = sample(), float("inf")
    for _ in range(_TRIES):
        start = time.perf_counter()
        preprocess.load(photo, spec)
        least = min(least, time.perf_counter() - start)
    return least
