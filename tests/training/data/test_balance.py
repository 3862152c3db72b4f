import numpy as np
import pytest

from training.data.balance import Balancing, balancing, class_weights, imbalance_warning, sampling_weights

TARGETS = np.repeat([0, 1, 2], [6, 3, 1])


def test_class_weights_are_inverse_to_the_counts_with_mean_one_over_the_pictures():
    weights = class_weights(TARGETS, 3)
    assert weights.dtype == np.float32
    assert weights[TARGETS].mean() == pytest.approx(1)
    assert weights[1] / weights[0] == pytest.approx(2)
    assert weights[2] / weights[0] == pytest.approx(6)


def test_a_class_without_pictures_has_weight_zero():
    assert class_weights(TARGETS, 4)[3] == 0


def test_sampling_shows_every_class_equally_often():
    weights = sampling_weights(TARGETS, 3)
    assert weights.sum() == pytest.approx(1)
    assert np.bincount(TARGETS, weights) == pytest.approx([1 / 3] * 3)


def test_the_warning_names_both_ends_and_what_to_do():
    warning = imbalance_warning(TARGETS, ("many", "some", "few"))
    assert warning is not None
    assert "'many' has 6" in warning
    assert "'few' has 1" in warning
    assert "--balance sampler" in warning


def test_uneven_classes_are_balanced_as_requested_or_warned_of():
    labels = ("many", "some", "few")
    assert np.array_equal(balancing("weights", TARGETS, labels).loss_weights, class_weights(TARGETS, 3))
    assert np.array_equal(balancing("sampler", TARGETS, labels).sampling_weights, sampling_weights(TARGETS, 3))
    assert balancing("none", TARGETS, labels) == Balancing(warning=imbalance_warning(TARGETS, labels))
    for balanced in ("weights", "sampler"):
        assert balancing(balanced, TARGETS, labels).warning is None


def test_even_classes_need_no_warning():
    assert imbalance_warning(np.repeat([0, 1], [30, 10]), ("a", "b")) is None
