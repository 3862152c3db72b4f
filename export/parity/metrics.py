"""Figures of a parity record: differences between a variant's logits and the reference's."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import numpy.typing as npt

from export.runtime import Logits
from models.common.statistics import mcnemar_p, rate, softmax

Classes = npt.NDArray[np.int64]

DECIDED_MARGIN = 0.05
"""An image is decided if the reference's two best probabilities differ by more than this."""


def compare(reference: Logits, variant: Logits, labels: Classes | None, *, temperature: float = 1.0) -> dict[str, Any]:
    """Compare two sets of logits for the same images.

    Args:
        reference: float32 (N, C) of the FP32 reference.
        variant: float32 (N, C) of the variant.
        labels: int64 (N,) true classes, or None.
        temperature: divides the logits before the softmax, as in serving.

    Returns:
        JSON-ready figures. Rates are {"value", "low", "high"} with a 95 % Wilson interval; `mean_kl` is
        KL(reference || variant) in nats; logit differences are in the logits' own unit.
    """
    finite = np.asarray(np.isfinite(variant).all(axis=1))
    # A NaN would spread into every mean: average the other images, and count those left out.
    reference_ok, variant_ok = reference[finite], variant[finite]
    probabilities = softmax(reference_ok, temperature)
    decided = _margin(probabilities) > DECIDED_MARGIN
    same = reference_ok.argmax(axis=1) == variant_ok.argmax(axis=1)
    figures: dict[str, Any] = {
        "images": len(reference),
        "nan_or_inf": int(len(finite) - finite.sum()),
        "top1_agreement": rate(int(same.sum()), len(reference)),
        "decided_images": int(decided.sum()),
        "decided_agreement": rate(int(same[decided].sum()), int(decided.sum())),
        "top5_overlap": _top5_overlap(reference_ok, variant_ok),
        "mean_kl": _mean(_kl(reference_ok, variant_ok, temperature)),
        "mean_abs_logit_difference": _mean(np.abs(reference_ok - variant_ok)),
        "max_abs_logit_difference": float(np.abs(reference_ok - variant_ok).max(initial=0.0)),
        "logit_correlation": _correlation(reference_ok, variant_ok),
    }
    if labels is not None:
        figures |= _labelled(reference, variant, labels)
    return figures


def _labelled(reference: Logits, variant: Logits, labels: Classes) -> dict[str, Any]:
    right, right_variant = _correct(reference, labels, 1), _correct(variant, labels, 1)
    count, accuracy = len(labels), float(right.mean())
    return {
        "accuracy": {
            "reference": rate(int(right.sum()), count),
            "variant": rate(int(right_variant.sum()), count),
            "difference": float(right_variant.mean() - right.mean()),
            "ratio": float(right_variant.mean() / accuracy) if accuracy else 0.0,
            "mcnemar_p": mcnemar_p(int((right & ~right_variant).sum()), int((~right & right_variant).sum())),
        },
        "top5_accuracy": {
            "reference": rate(int(_correct(reference, labels, 5).sum()), count),
            "variant": rate(int(_correct(variant, labels, 5).sum()), count),
        },
        "worst_class_drop": _worst_class_drop(right, right_variant, labels),
    }


def _correct(logits: Logits, labels: Classes, k: int) -> npt.NDArray[np.bool_]:
    """Return for each image if its true class is among the k best; logits that are not finite are wrong."""
    true = np.take_along_axis(logits, labels[:, None], axis=1)
    # Equal logits rank by index, as argmax does: constant logits are not correct for every image.
    earlier = np.arange(logits.shape[1]) < labels[:, None]
    rank = ((logits > true) | ((logits == true) & earlier)).sum(axis=1)
    return np.asarray((rank < k) & np.isfinite(logits).all(axis=1))


def _worst_class_drop(
    right: npt.NDArray[np.bool_], right_variant: npt.NDArray[np.bool_], labels: Classes
) -> dict[str, float | int]:
    classes, members = np.unique(labels, return_inverse=True)
    images = np.bincount(members)
    before, after = np.bincount(members, right) / images, np.bincount(members, right_variant) / images
    worst = int(np.argmax(before - after))
    return {
        "class_index": int(classes[worst]),
        "images": int(images[worst]),
        "reference": float(before[worst]),
        "variant": float(after[worst]),
        "drop": float(before[worst] - after[worst]),
    }


def _margin(probabilities: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    if probabilities.shape[1] < 2:
        return np.ones(len(probabilities))
    best = np.partition(probabilities, -2, axis=1)[:, -2:]
    return np.asarray(best[:, 1] - best[:, 0])


def _kl(reference: Logits, variant: Logits, temperature: float) -> npt.NDArray[np.float64]:
    p, q = softmax(reference, temperature), softmax(variant, temperature)
    tiny = np.finfo(np.float64).tiny
    return np.asarray((p * (np.log(np.maximum(p, tiny)) - np.log(np.maximum(q, tiny)))).sum(axis=1))


def _top5_overlap(reference: Logits, variant: Logits) -> float:
    """Return the mean share of the reference's five best classes that are among the variant's five best."""
    k = min(5, reference.shape[1])
    ours, theirs = np.argsort(-reference, axis=1)[:, :k], np.argsort(-variant, axis=1)[:, :k]
    return _mean((ours[:, :, None] == theirs[:, None, :]).any(axis=2))


def _correlation(reference: Logits, variant: Logits) -> float:
    """Return Pearson's correlation over all logits, without each image's mean; 0 if one of the two is constant."""
    a = (reference - reference.mean(axis=1, keepdims=True)).ravel().astype(np.float64)
    b = (variant - variant.mean(axis=1, keepdims=True)).ravel().astype(np.float64)
    norm = math.sqrt(float(a @ a) * float(b @ b))
    return float(a @ b) / norm if norm else 0.0


def _mean(values: npt.NDArray[Any]) -> float:
    return float(values.mean()) if values.size else 0.0
