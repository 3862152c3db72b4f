import numpy as np
import pytest

from models.common.statistics import softmax
from training.evaluation.calibration import error_by_chance, expected_calibration_error, reliability


def test_the_calibration_error_by_hand():
    probabilities = np.array([[0.9, 0.1], [0.9, 0.1], [0.2, 0.8], [0.6, 0.4]])
    targets = np.array([0, 1, 1, 0])
    # Bins of a tenth: 0.9 twice, half right; 0.8 right; 0.6 right.
    expected = (2 * abs(0.9 - 0.5) + abs(0.8 - 1) + abs(0.6 - 1)) / 4
    assert expected_calibration_error(probabilities, targets, bins=10) == pytest.approx(expected)


def test_bins_hold_every_picture_and_certainty_belongs_to_the_last():
    bins = reliability(np.array([[1.0, 0.0], [0.5, 0.5]]), np.array([0, 1]), bins=15)
    assert bins.count.sum() == 2
    assert bins.count[14] == 1
    assert bins.confidence[14] == bins.accuracy[14] == 1


def test_no_pictures_no_error():
    assert expected_calibration_error(np.zeros((0, 2)), np.zeros(0, np.int64)) == 0


@pytest.mark.parametrize("count", [28, 153, 2000])
def test_the_error_by_chance_is_that_of_calibrated_models(count):
    draw = np.random.default_rng(3)
    probabilities = softmax(draw.normal(0, 2, (count, 4)))
    classes = [(probabilities.cumsum(axis=1) > draw.random((count, 1))).argmax(axis=1) for _ in range(200)]
    found = np.mean([expected_calibration_error(probabilities, targets) for targets in classes])

    assert error_by_chance(probabilities) == pytest.approx(found, rel=0.08)
    assert error_by_chance(probabilities) == error_by_chance(probabilities)


def test_certain_predictions_err_by_no_chance():
    assert error_by_chance(np.eye(3)) == 0
    assert error_by_chance(np.zeros((0, 2))) == 0
