import math
from itertools import pairwise
from typing import get_args

import pytest
from hypothesis import given
from hypothesis import strategies as st

from training.config.recipe import Schedule, ScheduleName
from training.optim.schedule import factor

NAMES = get_args(ScheduleName)


def curve(steps_per_epoch=10, epochs=10, **options):
    config = Schedule(**options)
    steps = range(steps_per_epoch * epochs)
    return [factor(config, step, steps_per_epoch=steps_per_epoch, epochs=epochs) for step in steps]


@given(
    name=st.sampled_from(NAMES),
    steps=st.integers(1, 40),
    epochs=st.integers(1, 12),
    warmup=st.floats(0, 20),
    growth=st.floats(1, 3),
    length=st.floats(0.1, 20),
)
def test_every_schedule_stays_between_nothing_and_the_peak(name, steps, epochs, warmup, growth, length):
    rates = curve(
        steps, epochs, schedule=name, warmup_epochs=warmup, restart_growth=growth, restart_epochs=length,
        step_epochs=length,
    )  # fmt: skip
    assert all(0 < rate <= 1 for rate in rates)


def test_constant():
    assert set(curve(schedule="constant")) == {1.0}


def test_steps_fall_by_the_factor():
    rates = curve(schedule="step", step_epochs=4, step_factor=0.5)
    assert [rates[step] for step in (0, 39, 40, 79, 80, 99)] == [1, 1, 0.5, 0.5, 0.25, 0.25]


def test_cosine_goes_from_the_peak_to_the_least_share():
    rates = curve(schedule="cosine", min_lr_share=0.05)
    assert (rates[0], rates[-1]) == (1.0, pytest.approx(0.05))
    assert rates == sorted(rates, reverse=True)
    assert rates[33] == pytest.approx(0.05 + 0.95 * (1 + math.cos(math.pi * 33 / 99)) / 2)


def test_restarts_return_to_the_peak_after_ever_longer_cycles():
    rates = curve(epochs=14, schedule="restarts", restart_epochs=2, restart_growth=2.0)
    assert [step for step, rate in enumerate(rates) if rate == 1.0] == [0, 20, 60]
    assert all(later < earlier for earlier, later in pairwise(rates[20:60]))


def test_one_cycle_rises_for_a_third_and_ends_far_below_its_start():
    rates = curve(schedule="onecycle")
    assert rates.index(max(rates)) == 30
    assert (rates[0], rates[30], rates[-1]) == (pytest.approx(0.04), 1.0, pytest.approx(1e-4))
    assert curve(schedule="onecycle", warmup_epochs=1).index(1.0) == 10


@pytest.mark.parametrize("name", [name for name in NAMES if name != "onecycle"])
def test_a_warm_up_is_a_straight_line_before_the_whole_shape(name):
    rates = curve(schedule=name, warmup_epochs=2)
    assert rates[0] == pytest.approx(0.01)
    differences = [later - earlier for earlier, later in pairwise(rates[:21])]
    assert differences == pytest.approx([0.99 / 20] * 20)
    assert rates[20] == 1.0


def test_a_warm_up_takes_at_most_half_the_run():
    assert curve(epochs=2, schedule="cosine", warmup_epochs=50).index(1.0) == 10
