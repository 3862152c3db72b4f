import re

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from training.data.batches.loader import TrainingFeed, ValidationFeed, default_workers
from training.data.batches.sampling import Plan, seed_step, share
from training.data.dataset import CorruptDataError
from training.data.seeds import derived_seed

SIZES = {
    "pictures": st.integers(1, 300),
    "batch": st.integers(2, 64),
    "accumulate": st.integers(1, 4),
    "world": st.integers(1, 5),
    "seed": st.integers(0, 3),
}


def everywhere(world, epoch=1, **options):
    """Return the steps of an epoch, each as a tuple of its parts by process."""
    plans = [Plan(rank=rank, world=world, **options) for rank in range(world)]
    return list(zip(*(plan.epoch(epoch) for plan in plans), strict=True))


@settings(deadline=None)
@given(**SIZES)
def test_every_picture_is_seen_exactly_once_an_epoch(pictures, batch, accumulate, world, seed):
    steps = everywhere(world, pictures=pictures, batch=batch, accumulate=accumulate, seed=seed)
    seen = np.concatenate([part for views in steps for step in views for part in step.parts])
    assert sorted(seen) == list(range(pictures))


@settings(deadline=None)
@given(**SIZES, pairs=st.booleans())
def test_steps_have_the_stated_size_and_micro_batches_at_most_the_requested_one(
    pictures, batch, accumulate, world, seed, pairs
):
    options = {"pictures": pictures, "batch": batch, "accumulate": accumulate, "seed": seed, "pairs": pairs}
    steps = everywhere(world, **options)
    plan = Plan(world=world, **options)
    assert len(steps) == plan.steps
    for views in steps:
        assert {step.pictures for step in views} == {sum(len(part) for step in views for part in step.parts)}
        assert 1 <= len(views[0].parts) <= accumulate
        for parts in zip(*(step.parts for step in views), strict=True):
            assert sum(map(len, parts)) <= batch
            assert max(map(len, parts)) - min(map(len, parts)) <= (2 if pairs else 1)
    sizes = [views[0].pictures for views in steps]
    assert max(sizes) - min(sizes) <= (2 if pairs else 1)
    assert plan.least == min(len(part) for views in steps for step in views for part in step.parts)


@settings(deadline=None)
@given(**SIZES)
def test_pairs_make_every_part_even_and_show_an_odd_picture_twice(pictures, batch, accumulate, world, seed):
    steps = everywhere(world, pictures=pictures, batch=batch, accumulate=accumulate, seed=seed, pairs=True)
    parts = [part for views in steps for step in views for part in step.parts]
    assert all(len(part) % 2 == 0 for part in parts)
    keys = np.concatenate(parts)
    assert len(set(keys)) == len(keys)
    counts = np.bincount(keys % pictures, minlength=pictures)
    assert counts.min() >= 1
    assert counts.sum() == pictures + pictures % 2


@settings(deadline=None)
@given(**SIZES, pairs=st.booleans())
def test_processes_share_the_micro_batches_of_one(pictures, batch, accumulate, world, seed, pairs):
    options = {"pictures": pictures, "batch": batch, "accumulate": accumulate, "seed": seed, "pairs": pairs}
    together, alone = everywhere(world, **options), everywhere(1, **options)
    for views, (single,) in zip(together, alone, strict=True):
        for number, whole in enumerate(single.parts):
            assert sorted(np.concatenate([step.parts[number] for step in views])) == sorted(whole)


def test_epochs_and_seeds_have_different_orders():
    orders = [tuple(Plan(pictures=50, batch=8, seed=seed).order(epoch)) for seed in (0, 1) for epoch in (0, 1)]
    assert len(set(orders)) == 4
    assert orders[0] == tuple(Plan(pictures=50, batch=8, seed=0).order(0))


def test_weights_show_rare_pictures_more_often():
    weights = np.array([0.9] + [0.1 / 99] * 99)
    order = Plan(pictures=100, batch=10, weights=weights).order(0)
    assert len(order) == 100
    assert 75 < (order == 0).sum() < 99


@settings(deadline=None)
@given(**SIZES)
def test_a_picture_drawn_again_gets_another_key(pictures, batch, accumulate, world, seed):
    weights = np.arange(1, pictures + 1) / np.arange(1, pictures + 1).sum()
    options = {"pictures": pictures, "batch": batch, "accumulate": accumulate, "seed": seed, "weights": weights}
    steps = everywhere(world, **options)
    keys = np.concatenate([part for views in steps for step in views for part in step.parts])
    order = Plan(**options).order(1)
    expected = {(index, n) for index, count in enumerate(np.bincount(order)) for n in range(count)}
    assert {(key % pictures, key // pictures) for key in keys.tolist()} == expected
    assert len(keys) == len(expected)


@settings(deadline=None)
@given(pictures=st.integers(0, 60), batch=st.integers(1, 16), world=st.integers(1, 5))
def test_validation_deals_every_picture_once_and_in_order(pictures, batch, world):
    shares = [share(pictures, batch=batch, rank=rank, world=world) for rank in range(world)]
    assert all(len(part) <= batch for mine in shares for part in mine)
    dealt = [[index for part in mine for index in part] for mine in shares]
    assert sorted(index for mine in dealt for index in mine) == list(range(pictures))
    assert all(mine == sorted(mine) for mine in dealt)


def test_seeds_come_from_all_their_parts():
    assert derived_seed(1, 2, 3) == derived_seed(1, 2, 3)
    assert len({derived_seed(*parts) for parts in [(1, 2, 3), (1, 3, 2), (1, 2), (1, 2, 4)]}) == 4


def test_a_step_s_random_numbers_come_from_its_number_and_process():
    def drawn(*parts):
        seed_step(*parts)
        return float(torch.rand(1))

    assert drawn(5, 7, 0) == drawn(5, 7, 0)
    assert len({drawn(5, 7, 0), drawn(5, 7, 1), drawn(5, 8, 0), drawn(6, 7, 0)}) == 4


class Numbers(torch.utils.data.Dataset):
    shared = True

    def __len__(self):
        return 20

    def __getitem__(self, index):
        return torch.full((1,), index), index, index

    def set_epoch(self, epoch):
        pass


@pytest.mark.parametrize("workers", [0, 1])
def test_an_epoch_that_begins_in_the_middle_is_the_rest_of_the_whole_one(workers):
    feed = TrainingFeed(Numbers(), Plan(pictures=20, batch=3, accumulate=2, seed=4), workers=workers, pin=False)

    def targets(start):
        return [[batch[1].tolist() for batch in batches] for _, batches in feed.epoch(3, start=start)]

    whole = targets(0)
    assert len(whole) == 4
    assert targets(2) == whole[2:]
    assert targets(0) == whole


class Failing(Numbers):
    def __getitem__(self, index):
        raise CorruptDataError(f"picture {index} can't be read: replace it")


@pytest.mark.parametrize("workers", [0, 1])
def test_an_error_of_a_loader_process_is_one_clean_line(workers):
    training = TrainingFeed(Failing(), Plan(pictures=20, batch=3), workers=workers, pin=False).epoch(0)
    validation = iter(ValidationFeed(Failing(), batch=2, workers=workers, pin=False))
    for batches in (training, validation):
        with pytest.raises(CorruptDataError) as caught:
            next(batches)
        assert re.fullmatch(r"picture \d+ can't be read: replace it", str(caught.value))
        assert "\n" not in str(caught.value)


def test_loader_processes_share_the_cores(monkeypatch):
    monkeypatch.setattr("training.data.batches.loader.cores", lambda: 6)
    assert [default_workers(processes) for processes in (1, 2, 9)] == [6, 3, 1]
