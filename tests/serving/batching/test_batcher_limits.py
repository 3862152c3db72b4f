"""Limits of the batcher: capacity, deadlines, cancelled callers, draining and closing."""

import asyncio
from collections.abc import Sequence
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from serving.batching.batcher import Batcher
from serving.batching.cost_model import AlwaysUpTo, BatchSizes
from serving.http.errors import RequestError
from tests.serving.batching.gated_model import (
    HOURS,
    POLICIES,
    Gate,
    Thing,
    prepare,
    run_with,
    start_request,
    submit_briefly,
    things,
)


@settings(max_examples=20, deadline=None)
@given(capacity=st.integers(1, 8), counts=st.lists(st.integers(1, 4), max_size=10), prepared=st.booleans())
def test_a_request_without_room_is_refused_whole_and_the_others_are_served(
    capacity: int, counts: list[int], prepared: bool
) -> None:
    gate = Gate()
    batcher = Batcher(gate.run, sizes=AlwaysUpTo(3), threads=1, streams=1, capacity=capacity)
    room = capacity - 1
    expected = [room >= count and (room := room - count) >= 0 for count in counts]

    async def submit() -> list[Any]:
        first = await start_request(batcher, gate)
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

    answers = run_with(batcher, submit)

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
    sizes=POLICIES,
    prepared=st.booleans(),
)
def test_the_cancelled_and_the_expired_are_never_run(fates: list[str], sizes: BatchSizes, prepared: bool) -> None:
    gate, now = Gate(), [0.0]
    batcher = Batcher(gate.run, sizes=sizes, threads=1, streams=1, capacity=100, clock=lambda: now[0])

    async def submit() -> list[Any]:
        first = await start_request(batcher, gate)
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

    answers = run_with(batcher, submit)

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


def test_a_request_that_would_miss_its_deadline_is_refused_at_once() -> None:
    now = [0.0]
    gate = Gate()

    def run(things_: Sequence[Thing]) -> list[int]:
        now[0] += 1
        return gate.run(things_)

    batcher = Batcher(run, sizes=AlwaysUpTo(1), threads=1, streams=1, capacity=10, clock=lambda: now[0])

    async def submit() -> None:
        gate.opened.set()
        for number in range(100):
            await batcher.submit(things(number), seconds=HOURS)
            gate.entered.acquire()
        gate.opened.clear()
        queued = [await start_request(batcher, gate)]
        # No item waits: those in work may be done at any moment.
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

    run_with(batcher, submit)
    assert 9 not in gate.numbers[100:]


def test_a_caller_gets_its_timeout_on_time_while_the_model_is_busy() -> None:
    gate = Gate()
    batcher = Batcher(gate.run, sizes=AlwaysUpTo(1), threads=1, streams=1, capacity=10)

    async def submit() -> None:
        first = await start_request(batcher, gate)
        with pytest.raises(RequestError) as caught:
            await batcher.submit(things(1), seconds=0.01)
        assert caught.value.status == 504
        assert batcher.pending == 1
        gate.opened.set()
        assert await first == [0]

    run_with(batcher, submit)

    assert gate.numbers == [0]


def test_draining_waits_for_pending_items_and_closes_nothing() -> None:
    gate = Gate()
    batcher = Batcher(gate.run, sizes=AlwaysUpTo(1), threads=1, streams=1, capacity=10)

    async def submit() -> None:
        first = await start_request(batcher, gate)
        assert not await asyncio.to_thread(batcher.drain, 0.01)
        gate.opened.set()
        assert await asyncio.to_thread(batcher.drain)
        assert await first == [0]
        assert await batcher.submit(things(1), seconds=HOURS) == [-1]

    run_with(batcher, submit)
    batcher.close()


def test_closing_finishes_accepted_items_and_refuses_new_ones() -> None:
    gate = Gate()
    batcher = Batcher(gate.run, sizes=AlwaysUpTo(2), threads=2, streams=1, capacity=10)

    async def submit() -> None:
        first = await start_request(batcher, gate)
        second = asyncio.ensure_future(batcher.submit(things(1, 2, 3), seconds=HOURS, prepare=prepare))
        await asyncio.sleep(0)
        closing = asyncio.ensure_future(asyncio.to_thread(batcher.close))
        while (answer := await submit_briefly(batcher)) is None:
            pass
        assert (answer.status, answer.code) == (503, "shutting_down")
        gate.opened.set()
        await closing
        assert await first == [0]
        assert await second == [-1, -2, -3]

    run_with(batcher, submit)

    assert sorted(gate.numbers) == [0, 1, 2, 3]


def test_requests_that_a_stuck_thread_would_delay_too_long_are_refused() -> None:
    gate, now = Gate(), [0.0]
    batcher = Batcher(gate.run, sizes=AlwaysUpTo(1), threads=1, streams=1, capacity=9, clock=lambda: now[0])

    async def test() -> None:
        task = await start_request(batcher, gate)
        now[0] = 5.0
        with pytest.raises(RequestError, match="not be done in time: try again in 5 s") as refused:
            batcher.check_room(6.0)
        assert refused.value.status == 429
        batcher.check_room(7.0)
        task.cancel()
        # The caller is gone, the thread is as stuck as before.
        await asyncio.sleep(0)
        with pytest.raises(RequestError):
            batcher.check_room(6.0)
        gate.opened.set()
        await asyncio.to_thread(batcher.drain)
        batcher.check_room(6.0)

    run_with(batcher, test)
