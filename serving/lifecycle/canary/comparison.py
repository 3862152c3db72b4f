"""Comparison of a candidate with the active version on copies of live pictures, in idle time.

Both versions run the same picture in the same thread, one directly after the other. So their times can be compared,
whatever batches and other work the requests have: the live times of the two could not.
"""

from __future__ import annotations

import logging
import random
import time
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from typing import Any, Protocol

import numpy as np

from export.parity.metrics import DECIDED_MARGIN
from export.runtime import Logits, Pixels
from models.common.statistics import Probabilities, softmax
from models.preprocess.errors import ImageError
from serving.batching.batcher import Many
from serving.http.errors import RequestError
from serving.lifecycle.canary.criteria import CONFIDENCE_DROP, Criterion
from serving.lifecycle.served_model import ServedModel
from serving.process.idle_work import IdleWork

logger = logging.getLogger("bentoml.halftone")

LONGEST_WAIT = 0.1
"""Seconds after which a copy is taken even if the service is never idle: ten a second cost little."""

_UNNOTICED = 0.0005
"""Seconds more that no client notices: a small model's times differ by as much from run to run."""

TIMED_TOGETHER = 5
"""Pictures whose least times are compared: other work on a machine only adds to a time, and on a busy one to most."""

_HALF = 0.5

Picture = bytes | Pixels
"""A file as a client sent it, or pixels as the active version takes them."""


class Evidence(Protocol):
    """Receiver of what is found about a candidate."""

    model: ServedModel
    """The candidate's model."""

    @property
    def max_slowdown(self) -> float:
        """Time over that of the active version beyond which a picture was too slow."""

    def add(self, criterion: Criterion, *, bad: bool) -> None:
        """Receive the result for one picture."""

    def failed(self, error: Exception) -> None:
        """Receive a failure of the candidate on a picture that the active version classified."""

    def dropped(self) -> None:
        """Receive that there was no room for a copy."""


class Comparison:
    """Queue of copies, and the thread that compares.

    Args:
        candidate: receives the results.
        use_active: yields the active version.
        idle: returns True if the service has no other work now.
    """

    def __init__(
        self,
        candidate: Evidence,
        use_active: Callable[[], AbstractContextManager[ServedModel]],
        idle: Callable[[], bool],
    ) -> None:
        self._candidate = candidate
        self._use_active = use_active
        self._reported = False
        self._times: list[tuple[float, float]] = []
        self._work = IdleWork[Picture](
            self._compare_or_log,
            idle=idle,
            dropped=candidate.dropped,
            name="canary",
            longest_wait=LONGEST_WAIT,
            # It runs the model that requests run, too.
            lowest=False,
        )
        self._work.start()

    def offer(self, values: Many, results: Sequence[Any]) -> None:
        """Copy the pictures of a request that were classified; does not block.

        Args:
            values: image files, or pixels uint8 RGB (N, S, S, 3).
            results: of each; exceptions are ignored.
        """
        for value, result in zip(values, results, strict=True):
            if isinstance(result, Exception):
                continue
            # A view would keep the memory of the whole request.
            if isinstance(value, np.ndarray):
                self._work.put(lambda value=value: value.copy(), value.nbytes)  # type: ignore[misc]
            else:
                self._work.put(lambda value=value: bytes(value), len(value))  # type: ignore[misc]

    def stop(self) -> None:
        """Let the thread end once its present picture is done."""
        self._work.stop()

    def close(self) -> None:
        """Stop, and wait for the end of the thread."""
        self._work.close()

    def _compare_or_log(self, picture: Picture) -> None:
        try:
            with self._use_active() as active:
                self._compare(picture, active)
        # The picture of a client, or the active version's end, is no failure of the candidate.
        except (ImageError, RequestError):
            pass
        # The thread must survive whatever else there is.
        except Exception:
            if not self._reported:
                logger.exception("a picture could not be compared; further failures are not logged")
            self._reported = True

    def _compare(self, picture: Picture, active: ServedModel) -> None:
        candidate, model = self._candidate, self._candidate.model
        inputs = _inputs(picture, active, model)
        if inputs is None:
            return
        for_active, for_candidate = inputs
        # In random order: the second one finds the caches warm.
        if random.random() < _HALF:
            before, after = _timed(active, for_active), _attempt(model, for_candidate)
        else:
            after, before = _attempt(model, for_candidate), _timed(active, for_active)
        if isinstance(after, Exception):
            candidate.failed(after)
        else:
            candidate.add("errors", bad=False)
            self._judge(active, *before, *after)

    def _judge(self, active: ServedModel, before: Logits, usual: float, logits: Logits, seconds: float) -> None:
        candidate, manifest = self._candidate, self._candidate.model.manifest
        old = softmax(before[np.newaxis], active.manifest.temperature)[0]
        new = softmax(logits[np.newaxis], manifest.temperature)[0]
        candidate.add("confidence", bad=bool(new.max() < old.max() - CONFIDENCE_DROP))
        candidate.add("agreement", bad=not _agree(old, active.manifest.labels, manifest.labels[int(new.argmax())]))
        self._times.append((usual, seconds))
        if len(self._times) == TIMED_TOGETHER:
            least, least_of_candidate = map(min, zip(*self._times, strict=True))
            self._times.clear()
            candidate.add("latency", bad=least_of_candidate > candidate.max_slowdown * least + _UNNOTICED)


def _agree(probabilities: Probabilities, labels: Sequence[str], other: str) -> bool:
    """Return True if the other label is the best one or nearly: rounding may exchange them, as in the proof."""
    return other in labels and bool(probabilities[labels.index(other)] >= probabilities.max() - DECIDED_MARGIN)


def _inputs(picture: Picture, active: ServedModel, candidate: ServedModel) -> tuple[Pixels, Pixels] | None:
    """Return what each version takes; None if these pixels were prepared for another input than the candidate's."""
    same = active.manifest.input == candidate.manifest.input
    if isinstance(picture, np.ndarray):
        return (picture, picture) if same else None
    pixels = active.decode(picture)
    return pixels, pixels if same else candidate.decode(picture)


def _timed(model: ServedModel, pixels: Pixels) -> tuple[Logits, float]:
    start = time.perf_counter()
    logits = model.logits_at_once(pixels)
    return logits, time.perf_counter() - start


def _attempt(model: ServedModel, pixels: Pixels) -> tuple[Logits, float] | Exception:
    try:
        return _timed(model, pixels)
    except Exception as error:
        return error
