"""Answers with promises: what is said of the logits, and what is left out."""

from typing import Any

import numpy as np
import pytest

from models.bundle.promises import Promises, fit_promises, fit_without_labels
from models.common.novelty import familiarity
from models.common.statistics import softmax
from serving.api.upload import parse_coverage
from serving.http.errors import RequestError
from serving.lifecycle.predictions import answers
from tests.samples import manifest

LABELS = tuple("abcdefgh")
MODEL = manifest(labels=LABELS, temperature=1.5)


def drawn(images: int, seed: int) -> tuple[Any, Any]:
    """Logits of a calibrated model and the true classes."""
    random = np.random.default_rng(seed)
    logits = random.normal(0, 12, (images, len(LABELS))).astype(np.float32)
    return logits, np.array([random.choice(len(LABELS), p=row) for row in softmax(logits, MODEL.temperature)])


@pytest.fixture(scope="module")
def promises() -> Promises:
    return fit_promises(*drawn(4000, 0), MODEL.temperature)


def test_the_promises_hold_on_the_answers_to_other_images(promises: Promises) -> None:
    logits, targets = drawn(3000, 1)
    found = [answers(MODEL, 1, promises)(row) for row in logits]

    confident = [
        each["predictions"][0]["index"] == target
        for each, target in zip(found, targets, strict=True)
        if each["confident"]
    ]
    covered = [LABELS[target] in each["prediction_set"]["labels"] for each, target in zip(found, targets, strict=True)]
    assert len(confident) > 500
    assert np.mean(confident) > 0.985
    assert 0.94 < np.mean(covered) < 0.965
    assert 0.03 < np.mean([each["unfamiliar"] for each in found]) < 0.07
    assert promises.note is None


def test_the_members_of_an_answer(promises: Promises) -> None:
    logits = np.array([1, 9, 8.5, 0, 8, 0, 0, 0], np.float32)

    answer = answers(MODEL, 2, promises)(logits)

    assert list(answer) == ["predictions", "confident", "unfamiliar", "prediction_set"]
    assert [each["label"] for each in answer["predictions"]] == ["b", "c"]
    assert answer["confident"] is False
    assert answer["unfamiliar"] is bool(familiarity(logits) < promises.familiar)
    assert answer["prediction_set"] == {"coverage": 0.95, "labels": ["b", "c", "e"]}
    assert answers(MODEL, 2, promises, 0.5)(logits)["prediction_set"] == {"coverage": 0.5, "labels": ["b"]}
    assert answers(MODEL, 2, promises)(np.array([30] + [0] * 7, np.float32))["confident"] is True


def test_what_is_not_promised_is_left_out() -> None:
    logits = np.arange(8, dtype=np.float32)
    few = fit_promises(*drawn(15, 0), MODEL.temperature)
    unlabelled = fit_without_labels(drawn(320, 0)[0], 8)

    assert list(answers(MODEL, 1, None)(logits)) == ["predictions"]
    assert list(answers(MODEL, 1, few)(logits)) == ["predictions"]
    assert few.note == (
        "an error of at most 1.0% takes 368 or more held-out pictures, and there are 15; "
        "a coverage of 95% takes 19 or more held-out pictures, and there are 15"
    )
    assert list(answers(MODEL, 1, unlabelled)(logits)) == ["predictions", "unfamiliar"]
    assert "320 crops of 8 photographs" in str(unlabelled.note)


def test_a_model_that_is_often_wrong_promises_nothing_of_its_confidence() -> None:
    logits, targets = drawn(3000, 0)

    promises = fit_promises(logits, (targets + 1) % len(LABELS), MODEL.temperature)

    assert promises.threshold is None
    assert promises.note == "on 3000 held-out pictures, no threshold keeps the error of confident answers at 1.0%"
    assert "confident" not in answers(MODEL, 1, promises)(logits[0])


@pytest.mark.parametrize(("text", "value"), [("0.9", 0.9), (" .5 ", 0.5), ("0.999", 0.999), ("1e-3", 0.001)])
def test_a_coverage_that_can_be_promised(promises: Promises, text: str, value: float) -> None:
    assert parse_coverage(text, promises) == value
    assert parse_coverage(None, promises) is None


@pytest.mark.parametrize(
    "text", ["", "0", "1", "95", "-0.5", "nan", "0.9x", "٠.٥", "0_1.5", "0." + "9" * 60, "e-1", "."]
)
def test_a_coverage_that_is_none(promises: Promises, text: str) -> None:
    with pytest.raises(RequestError, match="coverage must be a number between 0 and 1"):
        parse_coverage(text, promises)


def test_a_coverage_that_cannot_be_promised(promises: Promises) -> None:
    few = fit_promises(*drawn(30, 0), MODEL.temperature)

    for known, text, words in (
        (promises, "0.9995", "at most 0.999 can be"),
        (few, "0.98", "at most 0.967 can be"),
        (None, "0.9", "no prediction sets are"),
    ):
        with pytest.raises(
            RequestError, match=f"a coverage of {text} is not promised by this model: {words}"
        ) as raised:
            parse_coverage(text, known)
        assert (raised.value.status, raised.value.code) == (422, "bad_parameter")
