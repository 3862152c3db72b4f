"""The batch size is the one with the best throughput by the measured costs of batches."""

import threading
from collections.abc import Collection

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from export.runtime import Pixels
from serving.batching.autotune import batch_sizes, fewest_streams, measure, worth_their_memory
from serving.batching.cost_model import AlwaysUpTo, Costs
from serving.settings import Settings
from tests.serving.stand_in import StandIn

costs = st.lists(st.floats(0.001, 0.1), min_size=1, max_size=6).map(lambda each: {2**i: c for i, c in enumerate(each)})


def throughput(true: dict[int, float], sizes: Costs | AlwaysUpTo, waiting: int, batches: int = 500) -> float:
    """Return the items per second of a model with these true costs if `waiting` items always wait."""
    items, seconds = 0, 0.0
    for _ in range(batches):
        size = sizes.best(waiting)
        items += size
        seconds += true[size]
        sizes.observe(size, true[size])
    return items / seconds


@settings(max_examples=40, deadline=None)
@given(table=costs, available=st.integers(1, 100))
def test_a_batch_never_needs_more_than_is_there(table: dict[int, float], available: int) -> None:
    assert Costs(table).best(available) in [size for size in table if size <= available]


@settings(max_examples=40, deadline=None)
@given(table=costs, waiting=st.sampled_from([1, 2, 8, 32]))
def test_the_automatic_choice_is_never_more_than_5_percent_behind_any_fixed_one(
    table: dict[int, float], waiting: int
) -> None:
    automatic = throughput(table, Costs(table), waiting)

    best = max(size / seconds for size, seconds in table.items() if size <= waiting)
    assert automatic >= 0.95 * best


@pytest.mark.parametrize(
    ("at_first", "later"),
    [
        ({1: 0.010, 2: 0.018, 4: 0.034}, {1: 0.010, 2: 0.023, 4: 0.050}),
        ({1: 0.010, 2: 0.021, 4: 0.044}, {1: 0.010, 2: 0.015, 4: 0.025}),
    ],
    ids=["batches stop paying", "batches begin to pay"],
)
def test_it_follows_the_machine(at_first: dict[int, float], later: dict[int, float]) -> None:
    sizes = Costs(at_first)
    throughput(at_first, sizes, waiting=4)

    throughput(later, sizes, waiting=4, batches=8_000)

    best = max(size / seconds for size, seconds in later.items())
    assert throughput(later, sizes, waiting=4) >= 0.95 * best


def test_costs_measured_on_an_idle_machine_are_soon_corrected_under_load() -> None:
    sizes = Costs({1: 0.0040, 2: 0.0080, 4: 0.0160})
    under_load = {1: 0.0060, 2: 0.0100, 4: 0.0160}

    throughput(under_load, sizes, waiting=4, batches=300)

    assert throughput(under_load, sizes, waiting=4) >= 0.95 * 4 / 0.0160


def test_the_smaller_one_of_equal_batches_is_best() -> None:
    assert Costs({1: 0.0100, 2: 0.0199, 4: 0.0396}).best(4) == 1


def test_waiting_pays_if_a_batch_costs_little_more_than_one() -> None:
    device, processor = Costs({1: 0.010, 2: 0.0101}), Costs({1: 0.010, 2: 0.020})

    assert device.waiting_pays(ready=1, coming=1, seconds=0.001)
    assert not device.waiting_pays(ready=1, coming=1, seconds=0.009)
    assert not processor.waiting_pays(ready=1, coming=1, seconds=0.001)


class Machine(threading.local):
    """Clock of a thread that only its work advances."""

    now = 0.0

    def clock(self) -> float:
        return self.now


@pytest.mark.parametrize(
    ("costs_by_size", "kept"),
    [
        ({1: 2.0, 2: 6.5}, [1]),
        ({1: 2.0, 2: 4.0, 4: 8.0, 8: 16.0}, [1, 2, 4, 8]),
        ({1: 2.0, 2: 2.1, 4: 2.2, 8: 2.3}, [1, 2, 4, 8]),
        ({1: 2.0, 2: 3.6, 4: 7.0, 8: 18.0}, [1, 2, 4]),
        ({1: 2.0, 2: 4.5, 4: 6.0, 8: 8.0}, [1, 2, 4, 8]),
        ({1: 2.0, 2: 3.95, 4: 7.9, 8: 11.2}, [1, 2, 4, 8]),
    ],
    ids=["one is best", "all alike", "bigger is better", "four is best", "two is worse", "only eight is better"],
)
def test_a_measurement_continues_while_batches_may_pay(costs_by_size: dict[int, float], kept: list[int]) -> None:
    machine, tried = Machine(), set()

    def run(size: int) -> None:
        tried.add(size)
        machine.now += costs_by_size[size]

    table = measure(run, streams=2, largest=8, seconds=10.0, clock=machine.clock).seconds

    assert tried == set(costs_by_size)
    assert table == pytest.approx({size: costs_by_size[size] for size in kept})


def test_a_moment_of_other_work_during_the_measurement_decides_nothing() -> None:
    machine = Machine()
    runs = iter(range(1000))

    def run(size: int) -> None:
        machine.now += 50.0 if next(runs) == 3 else size

    assert measure(run, streams=1, largest=2, seconds=20.0, clock=machine.clock).seconds == pytest.approx({1: 1, 2: 2})


def test_a_size_that_fails_in_one_thread_ends_the_measurement() -> None:
    failing = threading.Semaphore(1)

    def run(size: int) -> None:
        if size == 4 and failing.acquire(blocking=False):
            raise MemoryError

    assert list(measure(run, streams=3, largest=32, seconds=0.001).seconds) == [1, 2]


def test_a_model_that_can_not_run_at_all_raises_its_error() -> None:
    def run(size: int) -> None:
        raise MemoryError("no room")

    with pytest.raises(MemoryError, match="no room"):
        measure(run, streams=2, largest=8)


def test_few_large_batches_are_in_flight_if_batches_decide() -> None:
    device = {1: Costs({1: 0.010, 8: 0.012}), 2: Costs({1: 0.02, 8: 0.024}), 8: Costs({1: 0.08, 8: 0.096})}

    assert fewest_streams(8, device.__getitem__)[0] == 1


def test_two_streams_if_one_leaves_the_device_idle() -> None:
    device = {1: Costs({1: 0.015, 8: 0.018}), 2: Costs({1: 0.02, 8: 0.024}), 8: Costs({1: 0.08, 8: 0.096})}

    assert fewest_streams(8, device.__getitem__)[0] == 2


def test_on_a_processor_every_thread_runs_its_own() -> None:
    assert fewest_streams(4, {4: Costs({1: 0.010, 8: 0.070})}.__getitem__)[0] == 4


def test_a_size_is_prepared_before_several_threads_run_it() -> None:
    made: list[tuple[int, int]] = []

    class Compiling(StandIn):
        def keep(self, sizes: Collection[int]) -> None:
            made.extend((size, threading.get_ident()) for size in sizes if size not in dict(made))

        def _infer(self, pixels: Pixels) -> npt.NDArray[np.floating]:
            assert len(pixels) in dict(made)
            return super()._infer(pixels)

    _, costs = batch_sizes("a model", Compiling(), Settings(model="a model", threads=4))

    assert isinstance(costs, Costs)
    assert costs.seconds.keys() <= dict(made).keys()
    assert set(dict(made).values()) == {threading.get_ident()}


@pytest.mark.parametrize("batch", [0, 2])
def test_no_more_batches_at_once_than_the_runtime_executes(batch: int) -> None:
    runtime = StandIn()
    runtime.streams = 1

    streams, _ = batch_sizes("a model", runtime, Settings(model="a model", threads=4, batch=batch))

    assert streams == 1


@pytest.mark.parametrize(
    ("seconds", "sizes"),
    [
        # ms of a batch on processors with and without matrix units.
        ({1: 5.5, 2: 9.9, 4: 19.5, 8: 40.9}, [1, 2]),
        ({1: 3.68, 2: 7.02, 4: 12.8}, [1, 4]),
        ({1: 3.6, 2: 7.1, 4: 14.0}, [1]),
        ({1: 3.6, 2: 6.8, 4: 13.2}, [1]),
        ({1: 3.6, 2: 6.8, 4: 13.4}, [1]),
        ({1: 2.9, 2: 4.0, 4: 6.0, 8: 11.9}, [1, 4]),
        ({1: 2.9, 2: 4.0, 4: 6.0, 8: 9.9}, [1, 8]),
    ],
)
def test_one_larger_size_is_kept_if_it_gains_much(seconds: dict[int, float], sizes: list[int]) -> None:
    assert list(worth_their_memory(Costs(seconds)).seconds) == sizes
