"""Parity gate: each threshold at its edge."""

from typing import Any

import numpy as np
import pytest

from export.parity.__main__ import ParityConfig, gate_for
from export.parity.gate import MIN_DECIDED, Gate
from export.parity.labelled import difference
from export.parity.metrics import compare
from models.common.errors import HalftoneError

OUTPUTS: dict[str, Any] = {
    "lowest_correlation": {"value": 0.99, "class_index": 3},
    "largest_shift": {"value": 0.1, "class_index": 4},
    "scale": 0.995,
    "exchanged": 0,
    "exchanges": [],
    "spread": 0.1,
}
GOOD: dict[str, Any] = {
    "images": 320,
    "pictures": 8,
    "nan_or_inf": 0,
    "decided_images": MIN_DECIDED,
    "decided_agreement": {"value": 0.99},
    "mean_kl": 0.001,
    "logit_correlation": 0.99,
    "outputs": OUTPUTS,
}
NAMES = ("cat", "dog", "hen", "cow", "owl")


def accuracy(worse: int, better: int, images: int) -> dict[str, Any]:
    return {
        "accuracy": {
            "images": images,
            "difference": difference(worse, better, images),
            "only_reference": worse,
            "only_variant": better,
        },
        "classes": {"tested": 5, "too_few": 0, "least_right": 9, "worse": []},
    }


def reasons(figures: dict[str, Any], *, trained: bool = True, few: bool = False) -> list[str]:
    return Gate().reasons_to_fail(figures, trained=trained, labels=NAMES, few=few)


def test_the_thresholds_themselves_pass() -> None:
    assert reasons(GOOD) == reasons(GOOD, trained=False) == reasons(GOOD | accuracy(0, 0, 300)) == []


@pytest.mark.parametrize(
    ("highest", "lowest", "words"),
    [
        (0.001, 0.99, []),
        (0.0011, 0.99, ["mean KL divergence up to 0.0011 on other such pictures, limit 0.001"]),
        (0.001, 0.98, ["top-1 agreement on decided pictures down to 0.98 on other such pictures, limit 0.99"]),
    ],
)
def test_what_other_pictures_might_refuse_is_at_the_limit(highest: float, lowest: float, words: list[str]) -> None:
    figures = GOOD | {"mean_kl_interval": {"highest": highest}, "decided_resampled": {"lowest": lowest}}

    assert Gate().at_limit(figures, trained=True) == words
    # Random weights are decided on no image.
    assert Gate().at_limit(figures, trained=False) == [each for each in words if "KL" in each]


@pytest.mark.parametrize("labelled", [{}, accuracy(0, 0, 2)], ids=["without labels", "with labels"])
@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"nan_or_inf": 1}, "1 of 320 answers hold NaN or infinity"),
        (
            {"images": 255},
            "number of images 255 is below 256 (8 pictures that can be read, and their crops, are too few",
        ),
        ({"mean_kl": 0.00101}, "mean KL divergence 0.00101 is above 0.001"),
        ({"mean_kl": float("nan")}, "mean KL divergence nan is above"),
        ({"decided_images": MIN_DECIDED - 1}, "decided on only 63 of 320 pictures (at least 64 are needed)"),
        ({"decided_agreement": {"value": 0.989}}, "top-1 agreement on decided pictures 0.989 is below 0.99"),
        ({"decided_agreement": {"value": float("nan")}}, "nan is below 0.99"),
        (
            {"outputs": OUTPUTS | {"lowest_correlation": {"value": 0.9899, "class_index": 3}}},
            "correlation 0.9899 of the output of 'cow' is below 0.99",
        ),
        (
            {"outputs": OUTPUTS | {"largest_shift": {"value": 0.101, "class_index": 4}}},
            "the output of 'owl' is shifted by 0.101 standard deviations, above 0.1",
        ),
        ({"outputs": OUTPUTS | {"scale": 0.9}}, "the outputs are scaled by 0.9, more than 0.01 from 1"),
        (
            {"outputs": OUTPUTS | {"exchanged": 2, "exchanges": [{"class_index": 0, "is_rather": 2}]}},
            "2 classes are exchanged, such as 'cat' answers as 'hen'",
        ),
    ],
)
def test_every_limit_holds_with_and_without_labels(
    change: dict[str, Any], words: str, labelled: dict[str, Any]
) -> None:
    (reason,) = reasons(GOOD | labelled | change)

    assert words in reason


@pytest.mark.parametrize(
    ("worse", "better", "images", "outcome"),
    [
        (0, 0, 2, "too few to tell"),
        (0, 0, 240, "proven"),
        (9, 0, 200, "refuted"),
        (5, 5, 300, "too few to tell"),
        (5, 5, 3000, "proven"),
        (20, 20, 3000, "proven"),
        (150, 0, 10_000, "refuted"),
    ],
)
def test_the_accuracy_has_three_outcomes(worse: int, better: int, images: int, outcome: str) -> None:
    figures = GOOD | accuracy(worse, better, images)

    assert Gate().outcome(figures) == outcome
    assert bool(reasons(figures)) is (outcome == "refuted")
    assert bool(Gate().notes(figures, trained=True)) is (outcome == "too few to tell")


def test_a_refuted_accuracy_says_by_how_much() -> None:
    (reason,) = reasons(GOOD | accuracy(9, 0, 200))

    assert reason.startswith("accuracy changes by -4.50 points (-")
    assert reason.endswith("), more than 1 lost")


def test_too_few_pictures_say_how_many_would_do() -> None:
    (note,) = Gate().notes(GOOD | accuracy(0, 0, 30), trained=True)

    number = int(note.split("about ")[1].split(" ")[0])
    assert note.startswith("accuracy +0.00 points on 30 labelled pictures, too few to tell if it loses more than 1: ")
    assert Gate().outcome(GOOD | accuracy(0, 0, number)) == "proven"
    assert Gate().outcome(GOOD | accuracy(0, 0, number * 8 // 10)) == "too few to tell"


def test_a_class_that_is_worse_beyond_chance_is_named() -> None:
    worse = {"class_index": 1, "images": 50, "reference": 0.96, "variant": 0.5, "p": 1e-7}
    labelled = accuracy(0, 0, 3000)
    labelled["classes"]["worse"] = [worse, worse | {"variant": 0.955}]

    assert reasons(GOOD | labelled) == [
        "'dog': the reference is right on 96.0% of 50 pictures, the variant on 50.0% (p = 1e-07)"
    ]


def test_classes_with_too_few_pictures_are_said() -> None:
    labelled = accuracy(0, 0, 3000)
    labelled["classes"]["too_few"] = 2

    (note,) = Gate().notes(GOOD | labelled, trained=True)

    assert note.startswith("2 of 5 classes have too few pictures")
    assert note.endswith("the reference must be right on 9 of each")


def test_random_weights_are_compared_by_their_logits_and_said_to_be() -> None:
    undecided = GOOD | {"decided_images": 0, "decided_agreement": {"value": 0.0}}

    assert reasons(undecided, trained=False) == []
    assert reasons(undecided | {"logit_correlation": 0.98}, trained=False) == [
        "correlation 0.9800 of all logits is below 0.99"
    ]
    exchanged = {"outputs": OUTPUTS | {"exchanged": 2, "exchanges": [{"class_index": 0, "is_rather": 2}]}}
    assert reasons(undecided | exchanged, trained=False) == ["2 classes are exchanged, such as 'cat' answers as 'hen'"]
    assert Gate().notes(undecided, trained=False) == ["the weights are random: no answer was compared, only the logits"]


def test_a_network_that_answers_every_picture_alike_is_not_judged_by_rounding() -> None:
    constant = GOOD | {"outputs": OUTPUTS | {"exchanged": 2, "exchanges": [{"class_index": 0, "is_rather": 2}]}}
    constant["outputs"]["spread"] = 2.0**-20

    assert reasons(constant) == ["the network answers every picture alike: train it again, with a lower learning rate"]
    assert reasons(constant, trained=False) == []
    assert Gate().notes(constant, trained=False)[1:] == [
        "with them the network answers every picture nearly alike: exchanged classes would not show"
    ]


def test_a_look_at_a_few_images_has_the_same_limits_but_for_their_number() -> None:
    small = GOOD | {"images": 24, "decided_images": 0}

    assert reasons(small, few=True) == []
    assert len(reasons(small | {"mean_kl": 1.0}, few=True)) == 1
    assert len(reasons(GOOD | {"decided_images": 20, "decided_agreement": {"value": 0.9}}, few=True)) == 1


def test_nan_logits_fail_every_gate() -> None:
    logits = np.random.default_rng(0).normal(size=(300, 10)).astype(np.float32) * 5
    broken = logits.copy()
    broken[0, 0] = np.nan

    assert reasons(compare(logits, logits, None)) == []
    assert "NaN" in reasons(compare(logits, broken, None))[0]
    assert "NaN" in reasons(compare(logits, np.full_like(logits, np.nan), None))[0]


def test_every_reason_is_given() -> None:
    assert len(reasons(GOOD | {"nan_or_inf": 1, "images": 1, "mean_kl": 1.0, "decided_images": 0})) == 4


def test_the_lower_the_precision_the_more_it_may_differ() -> None:
    gates = [Gate.for_precision(precision) for precision in ("fp32", "fp16", "bf16", "int8")]

    assert gates[1] == Gate()
    for name in ("max_mean_kl", "max_shift", "max_scaling"):
        assert [getattr(gate, name) for gate in gates] == sorted({getattr(gate, name) for gate in gates})
    assert [gate.min_agreement for gate in gates] == [0.99, 0.99, 0.98, 0.96]
    assert [gate.min_correlation for gate in gates] == [0.9999, 0.99, 0.95, 0.9]


@pytest.mark.parametrize(
    "wrong",
    [
        {"min_agreement": 1.01},
        {"accuracy_margin": -0.1},
        {"min_agreement": float("nan")},
        {"min_correlation": 2},
        {"max_mean_kl": -1},
        {"max_shift": float("inf")},
        {"max_scaling": float("nan")},
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

    assert (fp16.min_agreement, fp16.max_mean_kl, fp16.min_images) == (0.5, 1.0, 256)
    assert (int8.min_agreement, int8.min_images) == (0.96, 1)
