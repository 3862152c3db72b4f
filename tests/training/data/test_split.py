import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from models.common.errors import HalftoneError
from training.data.pictures import ArrayPictures
from training.data.split import Shares, divided, first_of_every_class, stratified_sample, stratified_split

COUNTS = st.lists(st.integers(1, 40), min_size=2, max_size=6)


class Named(ArrayPictures):
    """Pictures whose names do not depend on their place."""

    def __init__(self, targets: np.ndarray, names: list[str]) -> None:
        labels = tuple(f"class {index}" for index in range(int(targets.max()) + 1))
        super().__init__(labels=labels, targets=targets, images=np.zeros((len(targets), 2, 2), np.uint8), title="")
        self.names = names

    def name(self, index: int) -> str:
        return self.names[index]


def pictures(counts: list[int]) -> Named:
    targets = np.repeat(np.arange(len(counts)), counts)
    return Named(targets, [f"{target}/{index}" for index, target in enumerate(targets)])


@settings(max_examples=60, deadline=None)
@given(
    counts=st.lists(st.integers(2, 40), min_size=2, max_size=6), val=st.floats(0.01, 0.5), test=st.floats(0.01, 0.49)
)
def test_three_parts_are_disjoint_complete_and_leave_every_class_in_training(counts, val, test):
    everything = pictures(counts)
    shares = Shares(val=val, test=test, seed=5)
    data = divided(everything, "a set", shares)
    parts = [data.train, data.val, data.test]
    names = [part.name(index) for part in parts for index in range(len(part))]
    assert sorted(names) == sorted(everything.names)
    assert set(data.train.targets.tolist()) == set(range(len(counts)))
    # The validation part is the same with and without a test.
    alone = divided(everything, "a set", Shares(val=val, seed=5))
    assert data.val.fingerprint() == alone.val.fingerprint()
    assert alone.test is None
    wanted = sum(count * test for count in counts)
    assert abs(len(data.test) - wanted) <= 1.5 * len(counts)


@settings(max_examples=60, deadline=None)
@given(counts=COUNTS, share=st.floats(0.01, 0.99), seed=st.integers(0, 2**32))
def test_a_split_is_disjoint_complete_stratified_and_repeatable(counts, share, seed):
    everything = pictures(counts)
    if max(counts) < 2:
        with pytest.raises(HalftoneError, match="no class has two pictures"):
            stratified_split(everything, val_share=share, seed=seed)
        return
    train, val = stratified_split(everything, val_share=share, seed=seed)
    assert sorted([*train, *val]) == list(range(len(everything)))
    for name, count in enumerate(counts):
        held_out = int((everything.targets[val] == name).sum())
        if count == 1:
            assert held_out == 0
        else:
            assert 1 <= held_out <= count - 1
            assert abs(held_out - share * count) <= 1
    again = stratified_split(everything, val_share=share, seed=seed)
    assert np.array_equal(again[0], train)
    assert np.array_equal(again[1], val)


@settings(max_examples=30, deadline=None)
@given(counts=st.lists(st.integers(2, 20), min_size=2, max_size=4), seed=st.integers(0, 999), data=st.data())
def test_the_order_of_the_files_does_not_matter(counts, seed, data):
    everything = pictures(counts)
    order = np.array(data.draw(st.permutations(range(len(everything)))))
    shuffled = Named(everything.targets[order], [everything.names[index] for index in order])
    _, val = stratified_split(everything, val_share=0.3, seed=seed)
    _, shuffled_val = stratified_split(shuffled, val_share=0.3, seed=seed)
    assert {everything.names[i] for i in val} == {shuffled.names[i] for i in shuffled_val}


def test_a_new_picture_moves_at_most_one_old_one():
    before, after = pictures([100, 100]), pictures([100, 101])
    held = [stratified_split(each, val_share=0.2, seed=3)[1] for each in (before, after)]
    names = [{each.names[i] for i in val} for each, val in zip((before, after), held, strict=True)]
    assert len(names[0] - names[1]) <= 1


def test_another_seed_makes_another_split():
    everything = pictures([50, 50])
    one, other = (stratified_split(everything, val_share=0.2, seed=seed)[1] for seed in (0, 1))
    assert not np.array_equal(one, other)


@settings(max_examples=60, deadline=None)
@given(counts=COUNTS, seed=st.integers(0, 999), data=st.data())
def test_a_sample_has_every_class_in_proportion(counts, seed, data):
    everything = pictures(counts)
    size = data.draw(st.integers(1, len(everything)))
    chosen = stratified_sample(everything, size, seed=seed)
    assert len(set(chosen)) == size
    got = np.bincount(everything.targets[chosen], minlength=len(counts))
    if size >= len(counts):
        assert got.min() >= 1
    assert np.all(np.abs(got - size * np.array(counts) / len(everything)) <= len(counts))
    assert np.array_equal(chosen, stratified_sample(everything, size, seed=seed))


def test_the_first_of_every_class():
    everything = pictures([5, 2, 9])
    chosen = first_of_every_class(everything, 3, seed=0)
    assert np.bincount(everything.targets[chosen]).tolist() == [3, 2, 3]
