import numpy as np
import pytest

from models.common.errors import HalftoneError
from models.common.statistics import softmax
from training.evaluation.calibration import expected_calibration_error, fit_temperature, reliability
from training.evaluation.metrics import negative_log_likelihood


def sampled(count: int, classes: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Logits and classes drawn from their softmax: calibrated by construction."""
    draw = np.random.default_rng(seed)
    logits = draw.normal(0, 2, (count, classes)).astype(np.float32)
    targets = np.array([draw.choice(classes, p=row) for row in softmax(logits)])
    return logits, targets


@pytest.mark.parametrize("factor", [0.25, 1.0, 4.0])
def test_the_temperature_undoes_a_factor_on_calibrated_logits(factor):
    logits, targets = sampled(6000, 5)
    assert fit_temperature(logits * factor, targets) == pytest.approx(factor, rel=0.05)


def test_the_temperature_is_the_best_of_all():
    logits, targets = sampled(3000, 4, seed=1)
    logits *= 3
    found = fit_temperature(logits, targets)
    best = negative_log_likelihood(softmax(logits, found), targets)
    for other in np.geomspace(0.1, 20, 60):
        assert best <= negative_log_likelihood(softmax(logits, other), targets) + 1e-6


def test_it_lowers_the_calibration_error():
    logits, targets = sampled(6000, 5, seed=2)
    logits *= 4
    before = expected_calibration_error(softmax(logits), targets)
    after = expected_calibration_error(softmax(logits, fit_temperature(logits, targets)), targets)
    assert before > 0.15
    assert after < 0.03


def test_a_perfect_accuracy_does_not_give_certainty():
    logits = np.eye(2, dtype=np.float32)[[0, 1] * 20] * 3
    temperature = fit_temperature(logits, np.array([0, 1] * 20))
    assert 0.02 < temperature < 1
    assert softmax(logits, temperature).max() == pytest.approx(1 - 1 / 42 / 2, abs=1e-3)


@pytest.mark.parametrize(
    ("logits", "targets", "expected"),
    [
        (np.zeros((0, 3), np.float32), np.zeros(0, np.int64), 1.0),
        (np.eye(3, dtype=np.float32) * 5, np.array([1, 2, 0]), 50.0),
    ],
    ids=["no pictures", "all wrong"],
)
def test_edges(logits, targets, expected):
    assert fit_temperature(logits, targets) == pytest.approx(expected, rel=1e-3)


def test_equal_logits_have_some_temperature():
    assert 0 < fit_temperature(np.ones((4, 3), np.float32), np.array([0, 1, 2, 0])) < np.inf


def test_large_logits_do_not_overflow():
    logits = np.array([[9e3, 0], [0, 9e3], [9e3, 0]], np.float32)
    assert np.isfinite(fit_temperature(logits, np.array([0, 1, 1])))


def test_logits_that_are_not_finite():
    with pytest.raises(HalftoneError, match="NaN or infinite"):
        fit_temperature(np.array([[np.nan, 0]], np.float32), np.array([0]))


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
