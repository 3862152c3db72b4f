import numpy as np
import pytest
import torch

from training.evaluation.metrics import classification_metrics, confusion, in_best, negative_log_likelihood, per_class
from training.loop.validate import validation_metrics

LABELS = ("cat", "dog", "emu")
PROBABILITIES = np.array(
    [[0.8, 0.1, 0.1], [0.2, 0.7, 0.1], [0.5, 0.4, 0.1], [0.1, 0.6, 0.3], [0.3, 0.3, 0.4], [0.6, 0.3, 0.1]]
)
TARGETS = np.array([0, 1, 1, 1, 2, 0])


def test_the_confusion_matrix_has_true_classes_in_rows():
    matrix = confusion(PROBABILITIES.argmax(axis=1), TARGETS, 3)
    assert matrix.tolist() == [[2, 0, 0], [1, 2, 0], [0, 0, 1]]


def test_precision_recall_and_f1():
    cat, dog, emu = per_class(np.array([[2, 0, 0], [1, 2, 0], [0, 0, 0]]), LABELS)
    assert (cat["precision"], cat["recall"], cat["f1"]) == pytest.approx((2 / 3, 1, 0.8))
    assert (dog["precision"], dog["recall"], dog["taken_for"]) == (1, pytest.approx(2 / 3), "cat")
    assert (emu["images"], emu["precision"], emu["recall"], emu["f1"], emu["taken_for"]) == (0, 0, 0, 0, "")


def test_all_figures_together():
    figures = classification_metrics(PROBABILITIES, TARGETS, LABELS)
    assert figures["images"] == 6
    assert figures["top1"]["value"] == pytest.approx(5 / 6)
    assert figures["top1"]["low"] < 5 / 6 < figures["top1"]["high"]
    assert figures["top5"]["value"] == 1
    assert figures["nll"] == pytest.approx(-np.log([0.8, 0.7, 0.4, 0.6, 0.4, 0.6]).mean())
    assert [entry["label"] for entry in figures["classes"]] == list(LABELS)


def test_ties_count_for_the_lower_index():
    assert in_best(np.full((2, 4), 0.25), np.array([0, 3]), 1).tolist() == [True, False]
    assert in_best(np.full((2, 4), 0.25), np.array([0, 3]), 3).tolist() == [True, False]


def test_a_class_of_probability_zero_has_a_finite_loss():
    assert np.isfinite(negative_log_likelihood(np.array([[1.0, 0.0]]), np.array([1])))


def test_the_loss_of_probabilities_that_are_no_number_is_none():
    assert np.isnan(negative_log_likelihood(np.array([[np.nan, np.nan]]), np.array([0])))


def test_the_loss_of_certain_and_right_predictions_prints_without_a_sign():
    assert f"{negative_log_likelihood(np.array([[1.0, 0.0]]), np.array([0])):.4f}" == "0.0000"
    certain = validation_metrics(torch.tensor([[200.0, 0.0]]), torch.tensor([0]))
    assert f"{certain['val_loss']:.4f}" == "0.0000"
