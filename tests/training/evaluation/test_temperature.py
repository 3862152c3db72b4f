import numpy as np
import pytest

from models.common.errors import HalftoneError
from models.common.statistics import softmax
from training.evaluation.calibration import expected_calibration_error
from training.evaluation.metrics import negative_log_likelihood
from training.evaluation.temperature import calibrate, fit_temperature


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


def kept(count: int, factor: float) -> float:
    """Share of small validation sets whose temperature is kept, of logits that are wrong by this factor."""
    draws = [sampled(count, 5, seed) for seed in range(100)]
    return float(np.mean([calibrate(logits * np.float32(factor), targets).kept for logits, targets in draws]))


@pytest.mark.parametrize("count", [28, 76])
def test_the_temperature_of_a_calibrated_model_is_seldom_kept(count):
    assert kept(count, 1.0) <= 0.1


@pytest.mark.parametrize("factor", [0.4, 2.5])
def test_a_temperature_that_helps_is_kept(factor):
    assert kept(76, factor) >= 0.95


def test_one_that_is_not_kept_is_1_and_says_from_how_many_pictures():
    logits, targets = sampled(28, 5)
    found = calibrate(logits, targets)
    assert (found.kept, found.temperature, found.pictures) == (False, 1.0, 28)
    assert f"one of {found.fitted:.3g}, fitted on 28 held-out pictures" in str(found)

    logits, targets = sampled(1200, 5)
    found = calibrate(logits * 3, targets)
    assert found.kept
    assert found.temperature == found.fitted == pytest.approx(3, rel=0.2)
    assert str(found).startswith(f"temperature {found.fitted:.3g}, fitted on 1,200 held-out pictures")


def test_without_pictures_no_temperature_is_kept():
    found = calibrate(np.zeros((0, 3), np.float32), np.zeros(0, np.int64))
    assert (found.temperature, found.pictures, found.p) == (1.0, 0, 1.0)
