"""Collector of pictures that teach a model: those of which it was not sure, and a sample of all others.

A request leaves its picture in a bounded queue of work for idle time; if that is full, the new picture is dropped. The
queue's thread decodes the pictures, encodes them again without what a camera adds, and writes them to the store. No
failure of it reaches a request: the metric counts it, and the log has one line until it works again.
"""

from __future__ import annotations

import logging
import random
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any, Literal, NamedTuple

import numpy as np

from models.preprocess.collected import NAMED, Answer, Reason, encode, file_name, reduced
from models.preprocess.decode import decode
from models.preprocess.resample import Pixels
from serving.collect.store import Contents, Store
from serving.process.idle_work import IdleWork, Upkeep

logger = logging.getLogger("bentoml.halftone")

LONGEST_WAIT = 1.0
"""Seconds after which a picture is written even if the service is never idle: one a second costs little."""

TIDY_SECONDS = 600.0
"""Time between looks for pictures that are too old, when none come."""

Result = Literal["known", "dropped", "failed"] | Reason
"""Of a chosen picture: written for a reason; or the store has it, the queue was full, or writing failed."""

Members = Mapping[str, Any]
"""Members of a response for one image: `predictions`, perhaps `confident` and `unfamiliar`."""


class Source(NamedTuple):
    """The model that answered."""

    model: str
    version: str
    variant: str


class _Picture(NamedTuple):
    image: bytes | Pixels
    """A file as a client sent it, or pixels."""

    answer: Answer


class Collector:
    """Queue and thread between requests and the store; its methods may be called from any thread.

    Args:
        store: receives the pictures.
        shares: share of the pictures to keep, 0 to 1, for each reason.
        max_pixels: ceiling on an image's width x height.
        idle: returns True if the service has no other work now.
        count: receives the result of each chosen picture.
    """

    def __init__(
        self,
        store: Store,
        shares: Mapping[Reason, float],
        *,
        max_pixels: int,
        idle: Callable[[], bool],
        count: Callable[[Result], object],
    ) -> None:
        self._store = store
        self._shares = shares
        self._max_pixels = max_pixels
        self._count = count
        self._failing = False
        self._work = IdleWork[_Picture](
            lambda picture: self._attempt(lambda: self._count(self._keep(picture))),
            idle=idle,
            dropped=lambda: count("dropped"),
            name="collector",
            longest_wait=LONGEST_WAIT,
            upkeep=Upkeep(lambda: self._attempt(store.tidy), TIDY_SECONDS),
        )

    def start(self) -> None:
        """Start the thread; without it, pictures wait."""
        self._work.start()

    def offer(self, images: Sequence[bytes], answers: Sequence[Members | Exception], source: Source) -> None:
        """Choose among classified images; does not block.

        Args:
            images: JPEG, PNG or WebP files.
            answers: of each image; errors are ignored.
            source: what answered.
        """
        for image, members in zip(images, answers, strict=True):
            if isinstance(members, Exception):
                continue
            reason = self._reason(members)
            if reason is not None:
                self._put(image, members, source, reason)

    def disagreed(self, pixels: Pixels, members: Members, source: Source) -> None:
        """Choose an image on which the FP32 reference gave another answer, by the model's own input.

        Args:
            pixels: uint8 RGB (S, S, 3).
            members: the answer of the served variant.
            source: what answered.
        """
        if self._chosen("disagree"):
            self._put(pixels, members, source, "disagree")

    def clear(self) -> int:
        """Delete all pictures, also those that wait; return the number of those that were in the store.

        Raises:
            OSError: the folder is gone or can't be written.
        """
        with self._work.paused():
            self._work.drop()
            return self._store.clear()

    def contents(self) -> Contents:
        """Count the pictures in the store.

        Raises:
            OSError: the folder is gone or can't be written.
        """
        with self._work.paused():
            return self._store.contents()

    def close(self) -> None:
        """End the thread; what waits is dropped. Does nothing if it was not started."""
        self._work.close()

    def _reason(self, members: Members) -> Reason | None:
        if members.get("unfamiliar") and self._chosen("unfamiliar"):
            return "unfamiliar"
        if members.get("confident") is False and self._chosen("unconfident"):
            return "unconfident"
        return "random" if self._chosen("random") else None

    def _chosen(self, reason: Reason) -> bool:
        return random.random() < self._shares[reason]

    def _put(self, image: bytes | Pixels, members: Members, source: Source, reason: Reason) -> None:
        def make() -> _Picture:
            # A view would keep the memory of the whole request.
            own = image if isinstance(image, np.ndarray) else bytes(image)
            return _Picture(own, _answer(members, source, reason))

        self._work.put(make, _size(image))

    def _keep(self, picture: _Picture) -> Result:
        image = picture.image
        pixels = reduced(decode(image, max_pixels=self._max_pixels) if isinstance(image, bytes) else image)
        name = file_name(pixels)
        # Asked first, because encoding takes longest.
        if self._store.has(name) or not self._store.add(name, encode(pixels, picture.answer)):
            return "known"
        return picture.answer.reason

    def _attempt(self, work: Callable[[], object]) -> None:
        """Do it; count a failure, and write a line if the last attempt did not fail."""
        try:
            work()
        # Whatever a disk, a decoder or a lack of memory raises: the thread must survive it.
        except Exception as error:
            self._count("failed")
            if not self._failing:
                reason = error.strerror if isinstance(error, OSError) and error.strerror else repr(error)
                logger.warning("pictures can't be collected (%s); further failures are only counted", reason)
            self._failing = True
        else:
            if self._failing:
                logger.info("pictures are collected again")
            self._failing = False


def _size(image: bytes | Pixels) -> int:
    return image.nbytes if isinstance(image, np.ndarray) else len(image)


def _answer(members: Members, source: Source, reason: Reason) -> Answer:
    best = members["predictions"][:NAMED]
    return Answer(
        model=source.model,
        version=source.version,
        variant=source.variant,
        time=datetime.now(UTC).isoformat(timespec="seconds"),
        reason=reason,
        predictions=tuple((each["label"], round(each["probability"], 6)) for each in best),
        confident=members.get("confident"),
        unfamiliar=members.get("unfamiliar"),
    )
