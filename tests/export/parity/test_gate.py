"""Parity gate: each threshold at its edge."""

from typing import Any

import numpy as np
import pytest

from export.parity.__main__ import ParityConfig, gate_for
from export.parity.gate import MIN_DECIDED, Gate
from export.parity.metrics import compare
from models.common.errors import HalftoneError

GOOD: dict[str, Any] = {
    "images": 320,
    "nan_or_inf": 0,
    "top1_agreement": {"value": 0.98},
    "decided_images": MIN_DECIDED,
    "decided_agreement": {"value": 0.99},
    "mean_kl": 0.01,
    "logit_correlation": 0.99,
}
LABELLED: dict[str, Any] = GOOD | {"accuracy": {"ratio": 0.99}}


def reasons(figures: dict[str, Any], *, trained: bool = True) -> list[str]:
    return Gate().reasons_to_fail(figures, trained=trained)


def test_the_thresholds_themselves_pass() -> None:
    assert reasons(GOOD) == reasons(GOOD, trained=False) == reasons(LABELLED) == []


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"nan_or_inf": 1}, "1 of 320 answers hold NaN or infinity"),
        ({"images": 255}, "number of images 255 is below 256"),
        ({"mean_kl": 0.0101}, "mean KL divergence 0.0101 is above 0.01"),
        ({"mean_kl": float("nan")}, "mean KL divergence nan is above"),
        ({"decided_images": MIN_DECIDED - 1}, "decided on only 63 of 320 pictures (at least 64 are needed)"),
        ({"decided_agreement": {"value": 0.989}}, "top-1 agreement on decided pictures 0.989 is below 0.99"),
        ({"decided_agreement": {"value": float("nan")}}, "nan is below 0.99"),
    ],
)
def test_without_labels(change: dict[str, Any], words: str) -> None:
    (reason,) = reasons(GOOD | change)

    assert words in reason


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"nan_or_inf": 2}, "2 of 320 answers hold NaN or infinity"),
        ({"accuracy": {"ratio": 0.9899}}, "accuracy / reference accuracy 0.9899 is below 0.99"),
        ({"top1_agreement": {"value": 0.9799}}, "top-1 agreement 0.9799 is below 0.98"),
    ],
)
def test_with_labels(change: dict[str, Any], words: str) -> None:
    (reason,) = reasons(LABELLED | change)

    assert words in reason


@pytest.mark.parametrize("change", [{"images": 20}, {"mean_kl": 9.0}, {"decided_images": 0}])
def test_with_labels_the_rest_does_not_decide(change: dict[str, Any]) -> None:
    assert reasons(LABELLED | change) == []


def test_untrained_weights_are_evaluated_by_correlation() -> None:
    undecided = GOOD | {"decided_images": 0, "decided_agreement": {"value": 0.0}}

    assert reasons(undecided, trained=False) == []
    assert reasons(undecided | {"logit_correlation": 0.98}, trained=False) == [
        "correlation of the logits 0.98 is below 0.99"
    ]


def test_nan_logits_fail_every_gate() -> None:
    logits = np.random.default_rng(0).normal(size=(300, 10)).astype(np.float32) * 5
    broken = logits.copy()
    broken[0, 0] = np.nan

    assert reasons(compare(logits, logits, None)) == []
    assert "NaN" in reasons(compare(logits, broken, None))[0]


def test_every_reason_is_given() -> None:
    assert len(reasons(GOOD | {"nan_or_inf": 1, "images": 1, "mean_kl": 1.0, "decided_images": 0})) == 4


def test_int8_may_differ_more() -> None:
    int8, others = Gate.for_precision("int8"), {Gate.for_precision(each) for each in ("fp32", "fp16", "bf16")}

    assert others == {Gate()}
    assert (int8.min_agreement, int8.min_decided_agreement, int8.max_mean_kl) == (0.96, 0.97, 0.05)
    assert int8.min_accuracy_ratio == 0.99


@pytest.mark.parametrize(
    "wrong",
    [
        {"min_agreement": 1.01},
        {"min_accuracy_ratio": -0.1},
        {"min_decided_agreement": float("nan")},
        {"min_correlation": 2},
        {"max_mean_kl": -1},
        {"max_mean_kl": float("inf")},
        {"max_mean_kl": float("nan")},
        {"min_images": 0},
    ],
)
def test_a_threshold_outside_its_range(wrong: dict[str, float]) -> None:
    with pytest.raises(HalftoneError, match=next(iter(wrong))):
        Gate(**wrong)  # type: ignore[arg-type]


def test_what_the_user_sets_replaces_the_default() -> None:
    config = ParityConfig(model="x", min_agreement=0.5, max_mean_kl=1.0)

    fp16, int8 = (
        gate_for("onnxruntime-fp16", config),
        gate_for("onnxruntime-int8", ParityConfig(model="x", min_images=1)),
    )

    assert (fp16.min_agreement, fp16.min_decided_agreement, fp16.max_mean_kl, fp16.min_images) == (0.5, 0.5, 1.0, 256)
    assert (int8.min_agreement, int8.min_images) == (0.96, 1)
