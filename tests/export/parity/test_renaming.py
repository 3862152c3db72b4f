"""Labels in another order than the outputs show in the reference's answers; a bad model's errors are none."""

from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from export.parity.gate import Gate
from export.parity.metrics import compare

NAMES = ("cat", "dog", "hen", "cow", "owl", "fox")


def reasons(answers: npt.NDArray[np.int64], labels: npt.NDArray[np.int64]) -> list[str]:
    """What the gate says of a variant that answers exactly as the reference."""
    noise = np.random.default_rng(1).normal(size=(len(answers), len(NAMES))).astype(np.float32)
    logits = noise + 12 * np.eye(len(NAMES), dtype=np.float32)[answers]
    figures: dict[str, Any] = compare(logits, logits, labels)
    return Gate(min_images=1).reasons_to_fail(figures, trained=True, labels=NAMES)


def spoilt(answers: npt.NDArray[np.int64], share: float) -> npt.NDArray[np.int64]:
    """The answers, of which a share is any class."""
    generator = np.random.default_rng(0)
    any_class = generator.integers(0, len(NAMES), len(answers))
    return np.where(generator.random(len(answers)) < share, any_class, answers)


@pytest.mark.parametrize(
    ("classes", "order"),
    [(6, [1, 2, 3, 4, 5, 0]), (6, [1, 0, 3, 2, 4, 5]), (4, [4, 5, 0, 3, 1, 2]), (2, [1, 0, 2, 3, 4, 5])],
    ids=["moved by one", "two pairs", "folders of some classes", "two classes exchanged"],
)
def test_labels_in_another_order_are_named(classes: int, order: list[int]) -> None:
    labels = np.arange(120) % classes

    (reason,) = reasons(spoilt(np.array(order)[labels], 0.2), labels)

    assert "the bundle's list of labels is in another order than its weights' outputs" in reason
    assert f"pictures of 'cat' '{NAMES[order[0]]}'" in reason
    assert "--labels FILE" in reason


@pytest.mark.parametrize("each", [1, 2, 3, 20])
@pytest.mark.parametrize("seed", range(5))
def test_a_bad_model_is_not_accused(each: int, seed: int) -> None:
    generator, labels = np.random.default_rng(seed), np.repeat(np.arange(6), each)
    for answers in (
        generator.integers(0, 6, len(labels)),
        np.full(len(labels), seed),
        np.where(generator.random(len(labels)) < 0.6, generator.integers(0, 6, len(labels)), labels),
        # Two classes are hard to tell from two others.
        np.array([2, 3, 2, 3, 4, 5])[labels],
    ):
        assert not any("in another order" in reason for reason in reasons(answers, labels))


def test_one_class_taken_for_another_is_an_error_as_any_other() -> None:
    labels = np.repeat([0, 1, 2], [100, 10, 10])

    assert reasons(np.array([3, 1, 2])[labels], labels) == []


def test_two_pictures_show_nothing() -> None:
    labels = np.repeat([0, 1], 2)

    assert not any("in another order" in reason for reason in reasons(1 - labels, labels))
