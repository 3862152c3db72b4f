"""A stand-in for a model, which tests of the batcher can hold and inspect."""

import asyncio
import threading
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from hypothesis import strategies as st

from serving.batching.batcher import Batcher
from serving.batching.cost_model import AlwaysUpTo, Costs
from serving.http.errors import RequestError

HOURS = 10_000.0


class BadError(Exception):
    """Exception that an item marked as bad causes."""


@dataclass(frozen=True)
class Thing:
    """An item of a test; its result is its negative number."""

    number: int
    fails: str = ""


@dataclass
class Model:
    """Model that records its batches."""

    batches: list[list[int]] = field(default_factory=list)
    at_once: int = 0
    most_at_once: int = 0
    lock: threading.Lock = field(default_factory=threading.Lock)

    def run(self, things: Sequence[Thing]) -> list[int]:
        with self.lock:
            self.batches.append([thing.number for thing in things])
            self.at_once += 1
            self.most_at_once = max(self.most_at_once, self.at_once)
        try:
            if any(thing.fails == "run" for thing in things):
                raise BadError
            return [-thing.number for thing in things]
        finally:
            with self.lock:
                self.at_once -= 1

    @property
    def numbers(self) -> list[int]:
        return [number for batch in self.batches for number in batch]


@dataclass
class Gate(Model):
    """Model that is held until `opened` is set, so that a test knows which items wait."""

    entered: threading.Semaphore = field(default_factory=lambda: threading.Semaphore(0))
    opened: threading.Event = field(default_factory=threading.Event)

    def run(self, things: Sequence[Thing]) -> list[int]:
        self.entered.release()
        self.opened.wait()
        return super().run(things)


def prepare(thing: Thing) -> Thing:
    """Return the item, unless it is to fail."""
    if thing.fails == "prepare":
        raise BadError
    return thing


def things(*numbers: int) -> list[Thing]:
    """Return items with these numbers."""
    return [Thing(number) for number in numbers]


def run_with(batcher: Batcher, test: Callable[[], Awaitable[Any]]) -> Any:
    """Run a coroutine function in an event loop, and close the batcher in any case."""

    async def run() -> Any:
        try:
            return await test()
        finally:
            await asyncio.to_thread(batcher.close)

    return asyncio.run(run())


async def start_request(batcher: Batcher, gate: Gate, number: int = 0) -> "asyncio.Task[list[Any]]":
    """Submit an item and wait until the model works on it; return the request's task."""
    task = asyncio.ensure_future(batcher.submit([Thing(number)], seconds=HOURS))
    await asyncio.to_thread(gate.entered.acquire)
    return task


async def submit_briefly(batcher: Batcher) -> RequestError | None:
    """Submit an item and return its refusal; None if it was accepted, in which case it is cancelled."""
    try:
        await asyncio.wait_for(batcher.submit(things(9), seconds=HOURS), 0.01)
    except RequestError as error:
        return error
    except TimeoutError:
        pass
    return None


POLICIES = st.one_of(
    st.integers(1, 5).map(AlwaysUpTo),
    st.lists(st.floats(0.1, 3), min_size=1, max_size=4).map(lambda each: Costs({2**i: c for i, c in enumerate(each)})),
)
