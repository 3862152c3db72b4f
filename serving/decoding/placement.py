"""Placement of decoding: in the threads that run the model, or in processes next to them.

The threads of a process share Python's lock, and decoding holds it for a third of its time: on any number of cores, a
process decodes about three times as many images as a single thread. If the model and the cores could do more, processes
decode, and the threads only pass on bytes and pixels. If not, that hand-over would only cost time
(`python -m serving.decoding.benchmark`).
"""

from __future__ import annotations

import logging
import time

from models.common.errors import HalftoneError
from models.preprocess import transform
from models.spec import InputSpec
from serving.decoding.pool import Decoders, LoadPixels, sample_photo
from serving.settings import Settings

logger = logging.getLogger("bentoml.halftone")

LOCKED = 0.31
"""Share of the time of decoding and resizing during which Python's lock is held: from a profile of photographs of
500 x 375 pixels."""

_MAX_LOCK_SHARE = 0.6
"""Share of the lock's time that decoding may take: the requests, and the switches between threads, need it too."""

_TRIES = 5


def place_decoding(
    name: str, decoders: Decoders, settings: Settings, spec: InputSpec, images_per_second: float
) -> LoadPixels:
    """Return the function that decodes a model's images; start and test the processes if it uses them.

    Args:
        name: name of the model, for the log.
        decoders: the service's decoding processes.
        settings: the service's settings; they may decide it.
        spec: the model's input.
        images_per_second: throughput of the model alone.

    Raises:
        HalftoneError: the settings demand processes, and they can't be used.
    """
    if settings.decoders == 0:
        return transform.load
    if settings.decoders > 0:
        decoders.start()
        return decoders.load
    share = lock_share(_seconds_to_load(spec), settings.busy_threads, images_per_second)
    if share <= _MAX_LOCK_SHARE:
        return transform.load
    try:
        decoders.start()
    except HalftoneError as error:
        logger.warning("%s: its own threads decode: %s", name, error)
        return transform.load
    logger.info("%s: %d processes decode", name, settings.decoder_processes)
    return decoders.load


def lock_share(seconds: float, threads: int, images_per_second: float) -> float:
    """Return the share of the time that decoding threads would hold Python's lock; over 1 if the time is too short.

    Args:
        seconds: time to decode and resize one image.
        threads: threads that decode and run the model, each on a core.
        images_per_second: throughput of the model alone.
    """
    return LOCKED * seconds / (seconds / threads + 1 / images_per_second)


def _seconds_to_load(spec: InputSpec) -> float:
    """Return the seconds from the bytes of the sample photograph to its pixels, the least of some tries."""
    photo, least = sample_photo(), float("inf")
    for _ in range(_TRIES):
        start = time.perf_counter()
        transform.load(photo, spec)
        least = min(least, time.perf_counter() - start)
    return least
