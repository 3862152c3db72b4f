"""Parity gate: thresholds that a variant must reach before it may serve."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal, Self

from export.parity.labelled import enough
from models.common.errors import HalftoneError

MIN_IMAGES = 256
"""Lowest number of images by default."""

MIN_DECIDED = 64
"""Lowest number of decided images; the agreement on fewer says nothing."""

CONSTANT = 2.0**-20
"""Spread of the outputs of a network that answers every picture alike: FP32 resolves 2^-23 of them."""

ROUNDED = 2.0**-7
"""Spread of the outputs of random weights below which their differences are rounding: bf16 resolves 2^-8 of them."""

MIN_RENAMING_GAIN = 0.3
"""Accuracy that other names for the reference's answers gain; from here on, its labels are in the wrong order."""

MAX_RENAMING_P = 0.001
"""Largest p-value of that gain."""

Outcome = Literal["proven", "refuted", "too few to tell"]

_LIMITS: dict[str, dict[str, float]] = {
    "fp32": {"max_mean_kl": 1e-6, "min_correlation": 0.9999, "max_shift": 0.01, "max_scaling": 0.001},
    "fp16": {},
    "bf16": {
        "max_mean_kl": 0.01,
        "min_correlation": 0.95,
        "max_shift": 0.25,
        "max_scaling": 0.05,
        "min_agreement": 0.98,
    },
    "int8": {
        "max_mean_kl": 0.05,
        "min_correlation": 0.90,
        "max_shift": 0.35,
        "max_scaling": 0.12,
        "min_agreement": 0.96,
    },
}
"""Where a precision's limits differ from those of FP16. Each leaves honest variants of EfficientNet-Lite0 at least
twice the difference that they have on the sample photographs: none fails for the choice of those (docs/export.md)."""


@dataclass(frozen=True, kw_only=True)
class Gate:
    """Thresholds of the parity gate; the defaults are those of FP16.

    Raises:
        HalftoneError: a threshold is outside its range.
    """

    min_agreement: float = 0.99
    """Share of the images on which the reference is decided that have its top-1 class."""

    max_mean_kl: float = 0.001
    """Mean KL divergence from the reference, in nats."""

    min_correlation: float = 0.99
    """Correlation of every class's logits with the reference's."""

    max_shift: float = 0.1
    """Difference of the mean of every class's logits, in the standard deviations of the reference's."""

    max_scaling: float = 0.01
    """How far the slope of the logits on the reference's, over all classes, may be from 1."""

    min_images: int = MIN_IMAGES
    """Number of images."""

    accuracy_margin: float = 0.01
    """With labels: share of images that the variant's accuracy may lose and still be proven as good."""

    def __post_init__(self) -> None:
        for name in ("min_agreement", "min_correlation", "accuracy_margin"):
            if not 0 <= getattr(self, name) <= 1:
                raise HalftoneError(f"the gate's {name} must lie in 0..1, not {getattr(self, name)!r}")
        for name in ("max_mean_kl", "max_shift", "max_scaling"):
            if not 0 <= getattr(self, name) < math.inf:
                raise HalftoneError(f"the gate's {name} must be 0 or more, not {getattr(self, name)!r}")
        if self.min_images < 1:
            raise HalftoneError(f"the gate's min_images must be at least 1, not {self.min_images!r}")

    @classmethod
    def for_precision(cls, precision: str) -> Self:
        """Return the default gate of a precision: FP32 may differ least, INT8 most."""
        return cls(**_LIMITS.get(precision, {}))  # type: ignore[arg-type]

    def reasons_to_fail(
        self, figures: dict[str, Any], *, trained: bool, labels: Sequence[str] = (), few: bool = False
    ) -> list[str]:
        """Return the thresholds that the figures of `export.parity.metrics.compare` miss, in words; [] if they pass.

        Args:
            figures: of the comparison.
            trained: False for random weights, which are decided on no image: their logits must correlate instead.
            labels: names of the classes, for the words.
            few: True for a look at a few images, which may be fewer than a proof needs.
        """
        reasons = [_none_broken(figures)]
        if not few:
            reasons.append(self._images(figures))
        if figures["outputs"] is not None:
            reasons.append(self._kl(figures))
            constant = figures["outputs"]["spread"] <= (CONSTANT if trained else ROUNDED)
            if not constant:
                reasons.append(_exchanged(figures["outputs"], labels))
            if trained and constant:
                reasons.append("the network answers every picture alike: train it again, with a lower learning rate")
            elif trained:
                reasons += [*self._outputs(figures["outputs"], labels), self._decided(figures, few=few)]
            else:
                # The logits of random weights hardly differ between images, so that rounding is a large part of that.
                reasons.append(self._correlated(figures))
        if "accuracy" in figures:
            reasons += [_renaming(figures, labels), self._accuracy(figures), *self._classes(figures, labels)]
        return [reason for reason in reasons if reason]

    def at_limit(self, figures: dict[str, Any], *, trained: bool) -> list[str]:
        """Return the thresholds that over one in a hundred resamples of the pictures would miss, in words.

        A variant that passes with such a reason might fail on other pictures of the same kind.

        Args:
            figures: of a comparison that passed.
            trained: as for `reasons_to_fail`.
        """
        reasons = []
        if (highest := figures["mean_kl_interval"]["highest"]) > self.max_mean_kl:
            reasons.append(f"mean KL divergence up to {highest:.4g} on other such pictures, limit {self.max_mean_kl:g}")
        if trained and (lowest := figures["decided_resampled"]["lowest"]) < self.min_agreement:
            reasons.append(
                f"top-1 agreement on decided pictures down to {lowest:.4g} on other such pictures, limit "
                f"{self.min_agreement:g}"
            )
        return reasons

    def outcome(self, figures: dict[str, Any]) -> Outcome | None:
        """Return if the accuracy is proven to lose at most the margin; None without labels."""
        if "accuracy" not in figures:
            return None
        bounds = figures["accuracy"]["difference"]
        if bounds["low"] > -self.accuracy_margin:
            return "proven"
        return "refuted" if bounds["high"] < -self.accuracy_margin else "too few to tell"

    def notes(self, figures: dict[str, Any], *, trained: bool) -> list[str]:
        """Return what the figures can't tell, in words."""
        notes = []
        if not trained:
            notes.append("the weights are random: no answer was compared, only the logits")
            if figures["outputs"] is not None and figures["outputs"]["spread"] <= ROUNDED:
                notes.append(
                    "with them the network answers every picture nearly alike: exchanged classes would not show"
                )
        if self.outcome(figures) == "too few to tell":
            notes.append(self._too_few(figures))
        if figures.get("classes", {}).get("too_few"):
            classes = figures["classes"]
            notes.append(
                f"{classes['too_few']} of {classes['tested']} classes have too few pictures for a test of their own: "
                f"the reference must be right on {classes['least_right']} of each"
            )
        return notes

    def _too_few(self, figures: dict[str, Any]) -> str:
        accuracy = figures["accuracy"]
        count = accuracy["images"]
        number = enough(accuracy["only_reference"], accuracy["only_variant"], count, self.accuracy_margin)
        return (
            f"accuracy {_signed(accuracy['difference']['value'])} points on {count} labelled pictures, too few to tell "
            f"if it loses more than {100 * self.accuracy_margin:g}: "
            + (f"about {number:,} would do" if number else "it lies at the limit")
        )

    def _images(self, figures: dict[str, Any]) -> str:
        if figures["images"] >= self.min_images:
            return ""
        return (
            f"number of images {figures['images']} is below {self.min_images} "
            f"({figures['pictures']} pictures that can be read, and their crops, are too few: add more, or omit --data)"
        )

    def _kl(self, figures: dict[str, Any]) -> str:
        if figures["mean_kl"] <= self.max_mean_kl:
            return ""
        return f"mean KL divergence {figures['mean_kl']:.4g} is above {self.max_mean_kl:g}"

    def _outputs(self, outputs: dict[str, Any], labels: Sequence[str]) -> list[str]:
        reasons = []
        lowest, largest = outputs["lowest_correlation"], outputs["largest_shift"]
        if not lowest["value"] >= self.min_correlation:
            reasons.append(
                f"correlation {lowest['value']:.4f} of the output of {_name(lowest['class_index'], labels)} is below "
                f"{self.min_correlation:g}"
            )
        if not largest["value"] <= self.max_shift:
            reasons.append(
                f"the output of {_name(largest['class_index'], labels)} is shifted by {largest['value']:.3g} standard "
                f"deviations, above {self.max_shift:g}"
            )
        if not abs(outputs["scale"] - 1) <= self.max_scaling:
            reasons.append(f"the outputs are scaled by {outputs['scale']:.4g}, more than {self.max_scaling:g} from 1")
        return reasons

    def _correlated(self, figures: dict[str, Any]) -> str:
        value = figures["logit_correlation"]
        if value >= self.min_correlation:
            return ""
        return f"correlation {value:.4f} of all logits is below {self.min_correlation:g}"

    def _decided(self, figures: dict[str, Any], *, few: bool) -> str:
        if few and not figures["decided_images"]:
            return ""
        if not few and figures["decided_images"] < MIN_DECIDED:
            return (
                f"the reference is decided on only {figures['decided_images']} of {figures['images']} pictures "
                f"(at least {MIN_DECIDED} are needed): prove on pictures like those of its training with --data DIR"
            )
        value = figures["decided_agreement"]["value"]
        if value >= self.min_agreement:
            return ""
        return f"top-1 agreement on decided pictures {value:.6g} is below {self.min_agreement:g}"

    def _accuracy(self, figures: dict[str, Any]) -> str:
        if self.outcome(figures) != "refuted":
            return ""
        change = figures["accuracy"]["difference"]
        return (
            f"accuracy changes by {_signed(change['value'])} points ({_signed(change['low'])} to "
            f"{_signed(change['high'])}), more than {100 * self.accuracy_margin:g} lost"
        )

    def _classes(self, figures: dict[str, Any], labels: Sequence[str]) -> list[str]:
        return [
            f"{_name(each['class_index'], labels)}: the reference is right on {each['reference']:.1%} of "
            f"{each['images']} pictures, the variant on {each['variant']:.1%} (p = {each['p']:.1g})"
            for each in figures["classes"]["worse"]
            if each["reference"] - each["variant"] > self.accuracy_margin
        ][:5]


def _exchanged(outputs: dict[str, Any], labels: Sequence[str]) -> str:
    if not outputs["exchanged"]:
        return ""
    first = outputs["exchanges"][0]
    names = f"{_name(first['class_index'], labels)} answers as {_name(first['is_rather'], labels)}"
    return f"{outputs['exchanged']} classes are exchanged, such as {names}"


def _signed(share: float) -> str:
    # Adding zero turns -0 into 0.
    return f"{round(100 * share, 2) + 0.0:+.2f}"


def _name(index: int, labels: Sequence[str]) -> str:
    return repr(labels[index]) if index < len(labels) else f"class {index}"


def _renaming(figures: dict[str, Any], labels: Sequence[str]) -> str:
    found = figures.get("renaming")
    if not found or found["gain"] < MIN_RENAMING_GAIN or found["p"] > MAX_RENAMING_P:
        return ""
    examples = ", ".join(
        f"{each['answered']} of {each['images']} pictures of {_name(each['class_index'], labels)} "
        f"{_name(each['answered_as'], labels)}"
        for each in found["examples"][:3]
    )
    return (
        f"the reference answers {found['classes']} classes by other names ({examples}), and {100 * found['gain']:.0f} "
        "points more would be right under the folders' names: the bundle's list of labels is in another order than its "
        "weights' outputs. Make the bundle again with the labels in the order of the outputs (--labels FILE of "
        "`python -m export.pull`), or rename the folders if they are wrong"
    )


def _none_broken(figures: dict[str, Any]) -> str:
    broken = figures["nan_or_inf"]
    return f"{broken} of {figures['images']} answers hold NaN or infinity" if broken else ""
