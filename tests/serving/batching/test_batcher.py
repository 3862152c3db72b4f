"""The batcher with a stand-in for a model: every item gets its result once and in order, and fails alone."""

import asyncio
import threading
from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from serving.batching.alone import AloneForm
from serving.batching.batcher import Batcher
from serving.batching.cost_model import AlwaysUpTo, BatchSizes, Costs
from tests.serving.batching.gated_model import (
    HOURS,
    POLICIES,
    BadError,
    Gate,
    Model,
    Thing,
    prepare,
    run_with,
    start_request,
    things,
)


@settings(max_examples=40, deadline=None)
@given(
    requests=st.lists(st.lists(st.sampled_from(["", "", "", "", "prepare", "run"]), max_size=5), max_size=12),
    threads=st.integers(1, 4),
    streams=st.integers(1, 4),
    sizes=POLICIES,
    prepared=st.booleans(),
)
def test_every_item_gets_its_own_result_and_only_once(
    requests: list[list[str]], threads: int, streams: int, sizes: BatchSizes, prepared: bool
) -> None:
    model, count = Model(), 0
    calls: list[list[Thing]] = []
    for marks in requests:
        calls.append([Thing(count + i, mark) for i, mark in enumerate(marks)])
        count += len(marks)
    batcher = Batcher(model.run, sizes=sizes, threads=threads, streams=streams, capacity=1000)
    first = prepare if prepared else None

    async def submit() -> list[list[Any]]:
        return await asyncio.gather(
            *(batcher.submit(call, seconds=HOURS, prepare=first, finish=lambda result: (result,)) for call in calls)
        )

    answers = run_with(batcher, submit)

    bad = {"run", "prepare"} if prepared else {"run"}
    for call, answer in zip(calls, answers, strict=True):
        assert len(answer) == len(call)
        for thing, result in zip(call, answer, strict=True):
            assert isinstance(result, BadError) if thing.fails in bad else result == (-thing.number,)
    assert batcher.pending == batcher.waiting == 0
    assert model.most_at_once <= min(threads, streams)
    if not any("run" in marks for marks in requests):
        expected = [thing.number for call in calls for thing in call if not (prepared and thing.fails)]
        assert Counter(model.numbers) == Counter(expected)
    assert all(times <= 2 for times in Counter(model.numbers).values())


@settings(max_examples=20, deadline=None)
@given(counts=st.lists(st.integers(1, 4), min_size=1, max_size=10), sizes=POLICIES, prepared=st.booleans())
def test_first_in_first_out(counts: list[int], sizes: BatchSizes, prepared: bool) -> None:
    gate = Gate()
    batcher = Batcher(gate.run, sizes=sizes, threads=1, streams=1, capacity=1000)
    total = sum(counts)
    numbers = iter(range(1, total + 1))
    answered: list[int] = []

    async def submit() -> None:
        first = await start_request(batcher, gate)
        tasks = []
        for index, count in enumerate(counts):
            call = things(*(next(numbers) for _ in range(count)))
            done = asyncio.ensure_future(batcher.submit(call, seconds=HOURS, prepare=prepare if prepared else None))
            done.add_done_callback(lambda _, index=index: answered.append(index))  # type: ignore[misc]
            tasks.append(done)
        await asyncio.sleep(0)
        gate.opened.set()
        await asyncio.gather(first, *tasks)

    run_with(batcher, submit)

    assert gate.numbers == list(range(total + 1))
    assert answered == list(range(len(counts)))


@pytest.mark.parametrize("size", [1, 3])
def test_a_passing_failure_harms_no_item(size: int) -> None:
    model = Model()
    failures = iter([BadError()])

    def run(batch: Sequence[Thing]) -> list[int]:
        for failure in failures:
            raise failure
        return model.run(batch)

    batcher = Batcher(run, sizes=AlwaysUpTo(size), threads=1, streams=1, capacity=10)

    async def submit() -> list[Any]:
        return await batcher.submit(things(*range(size)), seconds=HOURS)

    assert run_with(batcher, submit) == [-number for number in range(size)]


def test_batches_are_made_of_waiting_items_and_a_lone_item_never_waits() -> None:
    gate = Gate()
    batcher = Batcher(gate.run, sizes=AlwaysUpTo(4), threads=1, streams=1, capacity=100)

    async def submit() -> None:
        first = await start_request(batcher, gate)
        rest = [asyncio.ensure_future(batcher.submit(things(n), seconds=HOURS, prepare=prepare)) for n in range(1, 7)]
        await asyncio.sleep(0)
        gate.opened.set()
        await asyncio.gather(first, *rest)

    run_with(batcher, submit)

    assert gate.batches == [[0], [1, 2, 3, 4], [5, 6]]


class PanicError(BaseException):
    """Exception like that of a Rust library that panics, which is no `Exception`."""


def test_a_panic_fails_its_item_and_the_thread_survives() -> None:
    batcher = Batcher(Model().run, sizes=AlwaysUpTo(4), threads=1, streams=1, capacity=100)

    def panic(thing: Thing) -> Thing:
        if thing == Thing(1):
            raise PanicError("out of bounds")
        return thing

    async def submit() -> list[Any]:
        first = await batcher.submit([Thing(1), Thing(2)], seconds=HOURS, prepare=panic)
        return [*first, *await batcher.submit([Thing(3)], seconds=HOURS, prepare=panic)]

    failed, *others = run_with(batcher, submit)

    assert str(failed) == "PanicError: out of bounds"
    assert not any(isinstance(other, Exception) for other in others)
    assert batcher.pending == 0


def test_items_are_prepared_while_the_only_stream_is_busy() -> None:
    gate = Gate()
    batcher = Batcher(gate.run, sizes=AlwaysUpTo(8), threads=3, streams=1, capacity=100)
    prepared = threading.Semaphore(0)

    def note(thing: Thing) -> Thing:
        prepared.release()
        return thing

    async def submit() -> None:
        first = await start_request(batcher, gate)
        rest = asyncio.ensure_future(batcher.submit(things(*range(1, 9)), seconds=HOURS, prepare=note))
        for _ in range(8):
            await asyncio.to_thread(prepared.acquire)
        gate.opened.set()
        assert await rest == [-number for number in range(1, 9)]
        await first

    run_with(batcher, submit)

    assert sorted(gate.numbers) == list(range(9))
    assert gate.most_at_once == 1


@pytest.mark.parametrize(("on_all", "share"), [(1.0, 0.9), (3.0, 0.1)])
def test_an_item_alone_runs_on_all_cores_if_that_is_faster(on_all: float, share: float) -> None:
    form, chosen = AloneForm(), []
    for _ in range(200):
        chosen.append(form.on_all())
        form.observe(chosen[-1], on_all if chosen[-1] else 2.0)

    assert sum(chosen) / len(chosen) == pytest.approx(share, abs=0.05)


def test_no_estimate_learns_how_long_an_item_takes_on_all_cores() -> None:
    now = [0.0]

    def takes(seconds: float, model: Model) -> Callable[[Sequence[Thing]], list[int]]:
        def run(things: Sequence[Thing]) -> list[int]:
            now[0] += seconds
            return model.run(things)

        return run

    model, alone, sizes = Model(), Model(), Costs({1: 1.0})
    batcher = Batcher(takes(1.0, model), sizes=sizes, threads=2, streams=2, capacity=10, clock=lambda: now[0])
    batcher.use_alone(takes(0.5, alone))

    async def submit() -> None:
        for number in range(40):
            await batcher.submit(things(number), seconds=HOURS)
        await batcher.submit(things(*range(40, 43)), seconds=HOURS)

    run_with(batcher, submit)

    assert sorted(alone.numbers + model.numbers) == list(range(43))
    assert len(alone.numbers) > 30
    # Its first item, before there was any other sample, counts.
    assert sizes.seconds[1] > 0.8


def test_larger_batches_are_used_once_they_are_prepared() -> None:
    model = Model()
    batcher = Batcher(model.run, sizes=AlwaysUpTo(1), threads=1, streams=1, capacity=10)

    async def submit() -> None:
        await batcher.submit(things(0, 1), seconds=HOURS)
        batcher.use_sizes(AlwaysUpTo(2))
        await batcher.submit(things(2, 3), seconds=HOURS)

    run_with(batcher, submit)

    assert model.batches == [[0], [1], [2, 3]]
