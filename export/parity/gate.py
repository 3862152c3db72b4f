"""Parity gate: thresholds that a variant must reach before it may serve."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, Self

from models.common.errors import HalftoneError

MIN_DECIDED = 64
"""Lowest number of decided images; the agreement on fewer says nothing."""


@dataclass(frozen=True, kw_only=True)
class Gate:
    """Thresholds of the parity gate; the defaults hold for FP32, FP16 and bfloat16.

    Raises:
        HalftoneError: a threshold is outside its range.
    """

    min_accuracy_ratio: float = 0.99
    """With labels: accuracy as a share of the reference's (MLPerf Inference's rule)."""

    min_agreement: float = 0.98
    """With labels: share of images with the reference's top-1 class."""

    min_decided_agreement: float = 0.99
    """Without labels: share of the images on which the reference is decided that have its top-1 class."""

    max_mean_kl: float = 0.01
    """Without labels: mean KL divergence from the reference, in nats."""

    min_images: int = 256
    """Without labels: number of images."""

    min_correlation: float = 0.99
    """For untrained weights, whose top-1 class means nothing: correlation of the logits with the reference's."""

    def __post_init__(self) -> None:
        for name in ("min_accuracy_ratio", "min_agreement", "min_decided_agreement", "min_correlation"):
            if not 0 <= getattr(self, name) <= 1:
                raise HalftoneError(f"the gate's {name} must lie in 0..1, not {getattr(self, name)!r}")
        if not 0 <= self.max_mean_kl < math.inf or self.min_images < 1:
            raise HalftoneError("the gate's max_mean_kl must be 0 or more, and min_images at least 1")

    @classmethod
    def for_precision(cls, precision: str) -> Self:
        """Return the default gate of a precision; INT8 may differ more."""
        if precision == "int8":
            return cls(min_agreement=0.96, min_decided_agreement=0.97, max_mean_kl=0.05)
        return cls()

    def reasons_to_fail(self, figures: dict[str, Any], *, trained: bool) -> list[str]:
        """Return the thresholds that the figures of `export.parity.metrics.compare` miss, in words; [] if they pass."""
        checks = [_none_broken(figures)]
        if "accuracy" in figures:
            checks += [
                _at_least("accuracy / reference accuracy", figures["accuracy"]["ratio"], self.min_accuracy_ratio),
                _at_least("top-1 agreement", figures["top1_agreement"]["value"], self.min_agreement),
            ]
        else:
            checks += [_at_least("number of images", figures["images"], self.min_images), self._kl(figures)]
            checks += [self._decided(figures) if trained else self._correlated(figures)]
        return [reason for reason in checks if reason]

    def _kl(self, figures: dict[str, Any]) -> str:
        if figures["mean_kl"] <= self.max_mean_kl:
            return ""
        return f"mean KL divergence {figures['mean_kl']:.4g} is above {self.max_mean_kl}"

    def _decided(self, figures: dict[str, Any]) -> str:
        if figures["decided_images"] < MIN_DECIDED:
            return (
                f"the reference is decided on only {figures['decided_images']} of {figures['images']} pictures "
                f"(at least {MIN_DECIDED} are needed): prove on pictures like those of its training with --data DIR"
            )
        return _at_least(
            "top-1 agreement on decided pictures", figures["decided_agreement"]["value"], self.min_decided_agreement
        )

    def _correlated(self, figures: dict[str, Any]) -> str:
        return _at_least("correlation of the logits", figures["logit_correlation"], self.min_correlation)


def _none_broken(figures: dict[str, Any]) -> str:
    broken = figures["nan_or_inf"]
    return f"{broken} of {figures['images']} answers hold NaN or infinity" if broken else ""


def _at_least(name: str, value: float, threshold: float) -> str:
    return "" if value >= threshold else f"{name} {value:.6g} is below {threshold}"
