"""The batcher against a function that stands for a model: nothing lost, nothing twice, in order, bounded, on time."""

import asyncio
import threading
from collections import Counter
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from serving.batching.batcher import Batcher
from serving.batching.cost_model import AlwaysUpTo, BatchSizes, Costs
from serving.http.errors import RequestError

HOURS = 10_000.0


class BadError(Exception):
    """What an item marked bad causes."""


@dataclass(frozen=True)
class Thing:
    """An item of a test; its result is its number, negative."""

    number: int
    fails: str = ""


@dataclass
class Model:
    """Remembers what it was asked."""

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
    """A model that answers only once it is let, so that a test knows what waits."""

    entered: threading.Semaphore = field(default_factory=lambda: threading.Semaphore(0))
    opened: threading.Event = field(default_factory=threading.Event)

    def run(self, things: Sequence[Thing]) -> list[int]:
        self.entered.release()
        self.opened.wait()
        return super().run(things)


def prepare(thing: Thing) -> Thing:
    if thing.fails == "prepare":
        raise BadError
    return thing


def things(*numbers: int) -> list[Thing]:
    return [Thing(number) for number in numbers]


def run_with(batcher: Batcher, test: Callable[[], Awaitable[Any]]) -> Any:
    async def whole() -> Any:
        try:
            return await test()
        finally:
            await asyncio.to_thread(batcher.close)

    return asyncio.run(whole())


async def begun(batcher: Batcher, gate: Gate, number: int = 0) -> "asyncio.Work[list[Any]]":
    """A request that the model is working on now."""
    task = asyncio.ensure_future(batcher.submit([Thing(number)], seconds=HOURS))
    await asyncio.to_thread(gate.entered.acquire)
    return task


async def ask_briefly(batcher: Batcher) -> RequestError | None:
    """The refusal of a request, or None where it was accepted; then its caller changes its mind."""
    try:
        await asyncio.wait_for(batcher.submit(things(9), seconds=HOURS), 0.01)
    except RequestError as error:
        return error
    except TimeoutError:
        pass
    return None


policies = st.one_of(
    st.integers(1, 5).map(AlwaysUpTo),
    st.lists(st.floats(0.1, 3), min_size=1, max_size=4).map(lambda each: Costs({2**i: c for i, c in enumerate(each)})),
)


@settings(max_examples=40, deadline=None)
@given(
    requests=st.lists(st.lists(st.sampled_from(["", "", "", "", "prepare", "run"]), max_size=5), max_size=12),
    threads=st.integers(1, 4),
    streams=st.integers(1, 4),
    sizes=policies,
    prepared=st.booleans(),
)
def test_every_item_gets_its_own_result_and_only_once(
    requests: list[list[str]], threads: int, streams: int, sizes: BatchSizes, prepared: bool
) -> None:
    model, count = Model(), 0
    groups: list[list[Thing]] = []
    for marks in requests:
        groups.append([Thing(count + i, mark) for i, mark in enumerate(marks)])
        count += len(marks)
    batcher = Batcher(model.run, sizes=sizes, threads=threads, streams=streams, capacity=1000)
    first = prepare if prepared else None

    async def ask() -> list[list[Any]]:
        return await asyncio.gather(
            *(batcher.submit(group, seconds=HOURS, prepare=first, finish=lambda result: (result,)) for group in groups)
        )

    answers = run_with(batcher, ask)

    bad = {"run", "prepare"} if prepared else {"run"}
    for group, answer in zip(groups, answers, strict=True):
        assert len(answer) == len(group)
        for thing, result in zip(group, answer, strict=True):
            assert isinstance(result, BadError) if thing.fails in bad else result == (-thing.number,)
    assert batcher.pending == batcher.waiting == 0
    assert model.most_at_once <= min(threads, streams)
    if not any("run" in marks for marks in requests):
        expected = [thing.number for group in groups for thing in group if not (prepared and thing.fails)]
        assert Counter(model.numbers) == Counter(expected)
    assert all(times <= 2 for times in Counter(model.numbers).values())


@settings(max_examples=20, deadline=None)
@given(counts=st.lists(st.integers(1, 4), min_size=1, max_size=10), sizes=policies, prepared=st.booleans())
def test_first_in_first_out(counts: list[int], sizes: BatchSizes, prepared: bool) -> None:
    gate = Gate()
    batcher = Batcher(gate.run, sizes=sizes, threads=1, streams=1, capacity=1000)
    total = sum(counts)
    numbers = iter(range(1, total + 1))
    answered: list[int] = []

    async def ask() -> None:
        first = await begun(batcher, gate)
        tasks = []
        for index, count in enumerate(counts):
            group = things(*(next(numbers) for _ in range(count)))
            done = asyncio.ensure_future(batcher.submit(group, seconds=HOURS, prepare=prepare if prepared else None))
            done.add_done_callback(lambda _, index=index: answered.append(index))  # type: ignore[misc]
            tasks.append(done)
        await asyncio.sleep(0)
        gate.opened.set()
        await asyncio.gather(first, *tasks)

    run_with(batcher, ask)

    assert gate.numbers == list(range(total + 1))
    assert answered == list(range(len(counts)))


@settings(max_examples=20, deadline=None)
@given(capacity=st.integers(1, 8), counts=st.lists(st.integers(1, 4), max_size=10), prepared=st.booleans())
def test_what_has_no_room_is_refused_whole_and_the_rest_is_answered(
    capacity: int, counts: list[int], prepared: bool
) -> None:
    gate = Gate()
    batcher = Batcher(gate.run, sizes=AlwaysUpTo(3), threads=1, streams=1, capacity=capacity)
    room = capacity - 1
    expected = [room >= count and (room := room - count) >= 0 for count in counts]

    async def ask() -> list[Any]:
        first = await begun(batcher, gate)
        tasks = [
            asyncio.ensure_future(
                batcher.submit(things(*range(1, count + 1)), seconds=HOURS, prepare=prepare if prepared else None)
            )
            for count in counts
        ]
        await asyncio.sleep(0)
        assert batcher.pending <= capacity
        gate.opened.set()
        await first
        return await asyncio.gather(*tasks, return_exceptions=True)

    answers = run_with(batcher, ask)

    for accepted, count, answer in zip(expected, counts, answers, strict=True):
        if accepted:
            assert answer == [-number for number in range(1, count + 1)]
        else:
            assert isinstance(answer, RequestError)
            assert (answer.status, answer.code) == (429, "too_many_requests")
            assert int(answer.headers["Retry-After"]) >= 1


@settings(max_examples=20, deadline=None)
@given(
    fates=st.lists(st.sampled_from(["answered", "cancelled", "expired"]), max_size=10),
    sizes=policies,
    prepared=st.booleans(),
)
def test_the_cancelled_and_the_expired_are_never_run(fates: list[str], sizes: BatchSizes, prepared: bool) -> None:
    gate, now = Gate(), [0.0]
    batcher = Batcher(gate.run, sizes=sizes, threads=1, streams=1, capacity=100, clock=lambda: now[0])

    async def ask() -> list[Any]:
        first = await begun(batcher, gate)
        tasks = []
        for number, fate in enumerate(fates, 1):
            seconds = 100.0 if fate == "expired" else HOURS
            tasks.append(
                asyncio.ensure_future(
                    batcher.submit([Thing(number)], seconds=seconds, prepare=prepare if prepared else None)
                )
            )
        await asyncio.sleep(0)
        for fate, task in zip(fates, tasks, strict=True):
            if fate == "cancelled":
                task.cancel()
        await asyncio.sleep(0)
        assert batcher.pending == 1 + len(fates) - fates.count("cancelled")
        now[0] = 200.0
        gate.opened.set()
        await first
        return await asyncio.gather(*tasks, return_exceptions=True)

    answers = run_with(batcher, ask)

    assert gate.numbers == [0, *(number for number, fate in enumerate(fates, 1) if fate == "answered")]
    for number, (fate, answer) in enumerate(zip(fates, answers, strict=True), 1):
        if fate == "answered":
            assert answer == [-number]
        elif fate == "cancelled":
            assert isinstance(answer, asyncio.CancelledError)
        else:
            assert isinstance(answer, RequestError)
            assert (answer.status, answer.code) == (504, "deadline_passed")
    assert batcher.pending == 0


def test_what_would_be_too_late_is_refused_at_once() -> None:
    now = [0.0]
    gate = Gate()

    def run(things_: Sequence[Thing]) -> list[int]:
        now[0] += 1
        return gate.run(things_)

    batcher = Batcher(run, sizes=AlwaysUpTo(1), threads=1, streams=1, capacity=10, clock=lambda: now[0])

    async def ask() -> None:
        gate.opened.set()
        for number in range(100):
            await batcher.submit(things(number), seconds=HOURS)
            gate.entered.acquire()
        gate.opened.clear()
        queued = [await begun(batcher, gate)]
        # Nobody waits: what is worked on may be done at any moment.
        queued.append(asyncio.ensure_future(batcher.submit(things(1), seconds=0.5)))
        await asyncio.sleep(0)
        queued += [asyncio.ensure_future(batcher.submit(things(number), seconds=HOURS)) for number in range(2, 6)]
        await asyncio.sleep(0)
        with pytest.raises(RequestError) as caught:
            await batcher.submit(things(9), seconds=3)
        assert (caught.value.status, caught.value.headers) == (429, {"Retry-After": "6"})
        assert batcher.pending == 6
        queued.append(asyncio.ensure_future(batcher.submit(things(7), seconds=9)))
        await asyncio.sleep(0)
        assert batcher.pending == 7
        gate.opened.set()
        await asyncio.gather(*queued, return_exceptions=True)

    run_with(batcher, ask)
    assert 9 not in gate.numbers[100:]


@pytest.mark.parametrize("size", [1, 3])
def test_a_failure_that_passes_harms_nobody(size: int) -> None:
    model = Model()
    failures = iter([BadError()])

    def run(batch: Sequence[Thing]) -> list[int]:
        for failure in failures:
            raise failure
        return model.run(batch)

    batcher = Batcher(run, sizes=AlwaysUpTo(size), threads=1, streams=1, capacity=10)

    async def ask() -> list[Any]:
        return await batcher.submit(things(*range(size)), seconds=HOURS)

    assert run_with(batcher, ask) == [-number for number in range(size)]


def test_draining_waits_for_what_is_there_and_closes_nothing() -> None:
    gate = Gate()
    batcher = Batcher(gate.run, sizes=AlwaysUpTo(1), threads=1, streams=1, capacity=10)

    async def ask() -> None:
        first = await begun(batcher, gate)
        assert not await asyncio.to_thread(batcher.drain, 0.01)
        gate.opened.set()
        assert await asyncio.to_thread(batcher.drain)
        assert await first == [0]
        assert await batcher.submit(things(1), seconds=HOURS) == [-1]

    run_with(batcher, ask)
    batcher.close()


def test_a_caller_is_told_on_time_while_the_model_is_still_busy() -> None:
    gate = Gate()
    batcher = Batcher(gate.run, sizes=AlwaysUpTo(1), threads=1, streams=1, capacity=10)

    async def ask() -> None:
        first = await begun(batcher, gate)
        with pytest.raises(RequestError) as caught:
            await batcher.submit(things(1), seconds=0.01)
        assert caught.value.status == 504
        assert batcher.pending == 1
        gate.opened.set()
        assert await first == [0]

    run_with(batcher, ask)

    assert gate.numbers == [0]


def test_closing_finishes_what_was_accepted_and_takes_nothing_new() -> None:
    gate = Gate()
    batcher = Batcher(gate.run, sizes=AlwaysUpTo(2), threads=2, streams=1, capacity=10)

    async def ask() -> None:
        first = await begun(batcher, gate)
        second = asyncio.ensure_future(batcher.submit(things(1, 2, 3), seconds=HOURS, prepare=prepare))
        await asyncio.sleep(0)
        closing = asyncio.ensure_future(asyncio.to_thread(batcher.close))
        while (answer := await ask_briefly(batcher)) is None:
            pass
        assert (answer.status, answer.code) == (503, "shutting_down")
        gate.opened.set()
        await closing
        assert await first == [0]
        assert await second == [-1, -2, -3]

    run_with(batcher, ask)

    assert sorted(gate.numbers) == [0, 1, 2, 3]


def test_batches_are_made_of_what_waits_and_a_lone_item_never_waits() -> None:
    gate = Gate()
    batcher = Batcher(gate.run, sizes=AlwaysUpTo(4), threads=1, streams=1, capacity=100)

    async def ask() -> None:
        first = await begun(batcher, gate)
        rest = [asyncio.ensure_future(batcher.submit(things(n), seconds=HOURS, prepare=prepare)) for n in range(1, 7)]
        await asyncio.sleep(0)
        gate.opened.set()
        await asyncio.gather(first, *rest)

    run_with(batcher, ask)

    assert gate.batches == [[0], [1, 2, 3, 4], [5, 6]]


class PanicError(BaseException):
    """Like the exception of a Rust library that panics, which is no Exception."""


def test_a_panic_fails_its_own_item_and_the_thread_lives_on() -> None:
    batcher = Batcher(Model().run, sizes=AlwaysUpTo(4), threads=1, streams=1, capacity=100)

    def panic(thing: Thing) -> Thing:
        if thing == Thing(1):
            raise PanicError("out of bounds")
        return thing

    async def ask() -> list[Any]:
        first = await batcher.submit([Thing(1), Thing(2)], seconds=HOURS, prepare=panic)
        return [*first, *await batcher.submit([Thing(3)], seconds=HOURS, prepare=panic)]

    failed, *others = run_with(batcher, ask)

    assert str(failed) == "PanicError: out of bounds"
    assert not any(isinstance(other, Exception) for other in others)
    assert batcher.pending == 0


def test_decoders_go_on_while_the_only_stream_is_busy() -> None:
    gate = Gate()
    batcher = Batcher(gate.run, sizes=AlwaysUpTo(8), threads=3, streams=1, capacity=100)
    prepared = threading.Semaphore(0)

    def note(thing: Thing) -> Thing:
        prepared.release()
        return thing

    async def ask() -> None:
        first = await begun(batcher, gate)
        rest = asyncio.ensure_future(batcher.submit(things(*range(1, 9)), seconds=HOURS, prepare=note))
        for _ in range(8):
            await asyncio.to_thread(prepared.acquire)
        gate.opened.set()
        assert await rest == [-number for number in range(1, 9)]
        await first

    run_with(batcher, ask)

    assert sorted(gate.numbers) == list(range(9))
    assert gate.most_at_once == 1
