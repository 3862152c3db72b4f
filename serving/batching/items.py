"""The units of a batcher: a request, its items, and the work of a thread."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any

Step = Callable[[Any], Any]
"""Function of one item, called in one of the batcher's threads."""


@dataclass(eq=False, slots=True)
class BatchRequest:
    """The items of one call of `submit`, resolved once when all of them are done."""

    loop: asyncio.AbstractEventLoop
    future: asyncio.Future[list[Any]]
    deadline: float
    results: list[Any]
    prepare: Step | None
    finish: Step | None
    trace: Any
    left: int
    """Items without a result."""

    abandoned: bool = False
    """True if the caller no longer waits for the results."""

    def resolve(self) -> None:
        """Hand the caller its results, or a time-out if some are missing; runs on the caller's event loop."""
        if self.future.done():
            return
        if self.left:
            self.future.set_exception(TimeoutError())
        else:
            self.future.set_result(self.results)


@dataclass(eq=False, slots=True)
class Item:
    """One value of a request."""

    request: BatchRequest
    index: int
    value: Any
    since: float
    """Time when the item entered the queue that it is in."""

    waited: float = 0.0
    """Seconds in earlier queues."""


@dataclass(eq=False, slots=True)
class Work:
    """The next work of a thread: prepare one item, or run a batch."""

    items: list[Item]
    run: bool
    alone: bool = False
    """True if it is a batch of one item and no other item is pending."""

    on_all: bool = False
    """True if it then runs on all cores."""

    outcomes: list[Any] = field(default_factory=list)
    """The result of each item, or the exception that it caused."""

    seconds: float = 0.0
    """Duration of the work; zero if it failed."""


def call(function: Step, value: Any) -> Any:
    """Return the function's result, or the exception that it raised."""
    try:
        return function(value)
    except Exception as error:
        return error
    # A panic of a library in Rust is no Exception: the thread must survive it for the other items.
    except BaseException as error:
        return SystemError(f"{type(error).__name__}: {error}")


def finish_item(item: Item, result: Any) -> Any:
    """Apply the last step of the item's request to a result; return an exception as it is."""
    finish = item.request.finish
    return result if finish is None or isinstance(result, Exception) else call(finish, result)


def resolve_all(requests: Iterable[BatchRequest]) -> None:
    """Resolve each request on the event loop of its caller."""
    for request in requests:
        # Nothing waits on a closed loop.
        with contextlib.suppress(RuntimeError):
            request.loop.call_soon_threadsafe(request.resolve)
