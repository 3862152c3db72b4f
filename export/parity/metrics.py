"""Figures of a parity record: differences between a variant's logits and the reference's."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import numpy.typing as npt

from export.parity.clusters import Clusters, clustered_rate, mean_interval
from export.parity.labelled import Classes, compare_accuracy
from export.parity.outputs import compare_outputs
from export.runtime import Logits
from models.common.statistics import softmax

UNLABELLED = -1
"""Label of an image without one."""

DECIDED_MARGIN = 0.05
"""An image is decided if the reference's two best probabilities differ by more than this."""


def compare(
    reference: Logits,
    variant: Logits,
    labels: Classes | None,
    *,
    pictures: Clusters | None = None,
    temperature: float = 1.0,
) -> dict[str, Any]:
    """Compare two sets of logits for the same images.

    Args:
        reference: float32 (N, C) of the FP32 reference.
        variant: float32 (N, C) of the variant.
        labels: int64 (N,) true classes, `UNLABELLED` where an image has none; None: no image has one.
        pictures: int64 (N,) number of the picture that each image is a crop of; None: each image is a picture.
        temperature: divides the logits before the softmax, as in serving.

    Returns:
        JSON-ready figures. Rates are {"value", "low", "high"} with a 95 % Wilson interval, by picture where images are
        crops; `mean_kl` is KL(reference || variant) in nats; logit differences are in the logits' own unit;
        `decided_resampled` and `mean_kl_interval` are those of `export.parity.clusters.mean_interval`.
    """
    if pictures is None:
        pictures = np.arange(len(reference))
    finite = np.asarray(np.isfinite(variant).all(axis=1))
    # A NaN would spread into every mean: average the other images, and count those left out.
    reference_ok, variant_ok = reference[finite], variant[finite]
    probabilities = softmax(reference_ok, temperature)
    decided = is_decided(probabilities)
    answers = reference_ok.argmax(axis=1)
    # Images whose variant is not finite disagree, and count as such.
    same = np.zeros(len(reference), bool)
    same[finite] = answers == variant_ok.argmax(axis=1)
    divergence, kept = _kl(reference_ok, variant_ok, temperature), pictures[finite]
    spread = np.zeros(len(reference))
    spread[finite] = divergence
    figures: dict[str, Any] = {
        "images": len(reference),
        "pictures": len(np.unique(pictures)),
        "nan_or_inf": int(len(finite) - finite.sum()),
        "top1_agreement": clustered_rate(same, pictures, spread),
        "decided_images": int(decided.sum()),
        "decided_classes": len(np.unique(answers[decided])),
        "decided_agreement": clustered_rate(same[finite][decided], kept[decided], divergence[decided]),
        "decided_resampled": mean_interval(same[finite][decided].astype(np.float64), kept[decided]),
        "top5_overlap": _top5_overlap(reference_ok, variant_ok),
        "mean_kl": _mean(divergence),
        "mean_kl_interval": mean_interval(divergence, kept),
        "mean_abs_logit_difference": _mean(np.abs(reference_ok - variant_ok)),
        "max_abs_logit_difference": float(np.abs(reference_ok - variant_ok).max(initial=0.0)),
        "logit_correlation": _correlation(reference_ok, variant_ok),
        # Without a finite image there is nothing to compare, and the gate fails anyway.
        "outputs": compare_outputs(reference_ok, variant_ok) if len(reference_ok) else None,
    }
    if labels is not None and (known := labels != UNLABELLED).any():
        figures |= compare_accuracy(reference[known], variant[known], labels[known])
    return figures


def is_decided(probabilities: npt.NDArray[np.float64]) -> npt.NDArray[np.bool_]:
    """Return bool (N,): True if the two best probabilities differ by more than `DECIDED_MARGIN`.

    Args:
        probabilities: float64 (N, C) of the reference, at the model's temperature.
    """
    if probabilities.shape[1] < 2:
        return np.ones(len(probabilities), bool)
    best = np.partition(probabilities, -2, axis=1)[:, -2:]
    return np.asarray(best[:, 1] - best[:, 0] > DECIDED_MARGIN)


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
