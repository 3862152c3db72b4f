"""The units of a batcher: what one request asked for, its items, and what a thread does with them next."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

Prepare = Callable[[Any], Any]
Finish = Callable[[Any], Any]


class Observer:
    """Is told how long things take; this one ignores it. Called from the batcher's threads."""

    def waited(self, seconds: float, trace: Any, total: float | None) -> None:
        """A picture of a submit with this trace leaves a queue now after this long.

        `total` is the time in all its queues, and None where another one follows.
        """

    def prepared(self, seconds: float, trace: Any) -> None:
        """A picture was decoded in this time, which ends now."""

    def ran(self, seconds: float, traces: Sequence[Any]) -> None:
        """A batch was run in this time, which ends now; one trace for each of its pictures."""


@dataclass(eq=False, slots=True)
class BatchRequest:
    """What one request asked for: answered once, when nothing of it is left to do."""

    loop: asyncio.AbstractEventLoop
    future: asyncio.Future[list[Any]]
    deadline: float
    results: list[Any]
    prepare: Prepare | None
    finish: Finish | None
    trace: Any
    left: int
    """Items without a result."""

    given_up: bool = False
    """Whether nobody waits for the results any more."""

    def resolve(self) -> None:
        """Give the caller its results, or tell it that the time is up; on its own event loop."""
        if self.future.done():
            return
        if self.left:
            self.future.set_exception(TimeoutError())
        else:
            self.future.set_result(self.results)


@dataclass(eq=False, slots=True)
class Item:
    """One picture of a group."""

    group: BatchRequest
    index: int
    value: Any
    since: float
    """When it got into the queue that it is in."""

    waited: float = 0.0
    """Seconds in earlier queues."""


@dataclass(eq=False, slots=True)
class Work:
    """What a thread does next: prepare one item, or run a batch."""

    items: list[Item]
    run: bool
    outcomes: list[Any] = field(default_factory=list)
    """For each item its result, or the exception that it caused."""

    seconds: float = 0.0
    """Time that it took; zero where it failed."""


def outcome(function: Callable[[Any], Any], value: Any) -> Any:
    """The function's result, or the exception that it raised."""
    try:
        return function(value)
    except Exception as error:
        return error
    # A library in Rust that panics raises what is no Exception: the thread must live on for the other items.
    except BaseException as error:
        return SystemError(f"{type(error).__name__}: {error}")


def finished(item: Item, result: Any) -> Any:
    """What the caller gets of a result of the batcher's function."""
    finish = item.group.finish
    return result if finish is None or isinstance(result, Exception) else outcome(finish, result)


def answer(groups: Iterable[BatchRequest]) -> None:
    """Tell the callers, each on its own event loop."""
    for group in groups:
        # A closed loop has nobody left who waits.
        with contextlib.suppress(RuntimeError):
            group.loop.call_soon_threadsafe(group.resolve)
