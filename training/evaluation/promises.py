"""What becomes of promises on images that they were not fitted on."""

from __future__ import annotations

from typing import Any

import numpy as np

from models.bundle.promises import Logits, Promises, Targets, confidences, fit_promises
from models.common.binomial import exact_interval
from models.common.conformal import quantile, set_sizes, true_scores
from models.common.novelty import auroc, familiarity
from models.common.statistics import softmax


def measure(promises: Promises, logits: Logits, targets: Targets, temperature: float) -> dict[str, Any]:
    """Return how the promises hold on labelled images, JSON-ready; each rate has its exact 95 % interval.

    Args:
        promises: fitted on other images.
        logits: float32 (N, C).
        targets: int64 (N,).
        temperature: the model's.

    Returns:
        `images`; `fitted_on`, their number when the promises were fitted; `promised_error`, `answered` and `error` of
        confident answers; `promised_coverage`, `coverage` and `set_size` of prediction sets; `unfamiliar`, the share
        that is flagged. What is not promised is None.
    """
    probabilities = softmax(logits, temperature)
    wrong, limit = probabilities.argmax(axis=1) != targets, quantile(promises.quantiles, promises.coverage)
    result: dict[str, Any] = {
        "images": len(targets),
        "fitted_on": promises.images,
        "promised_error": promises.error,
        "promised_coverage": promises.coverage,
        **dict.fromkeys(("answered", "error", "coverage", "set_size", "unfamiliar")),
    }
    if promises.threshold is not None:
        confident = confidences(probabilities) >= promises.threshold
        result |= {"answered": _rate(confident), "error": _rate(wrong[confident])}
    if limit is not None:
        sizes = set_sizes(-np.sort(-probabilities, axis=1), limit)
        # The most probable class is always in the set, whatever its score.
        covered = (true_scores(probabilities, targets) <= limit) | ~wrong
        result |= {"coverage": _rate(covered), "set_size": float(sizes.mean()) if len(sizes) else None}
    if promises.familiar is not None:
        result["unfamiliar"] = _rate(familiarity(logits) < promises.familiar)
    return result


def measure_on_half(logits: Logits, targets: Targets, temperature: float) -> dict[str, Any] | None:
    """Fit promises on one half of the images and return `measure` on the other; None for fewer than two images.

    The halves are drawn at random with a fixed seed.
    """
    if len(targets) < 2:
        return None
    order = np.random.default_rng(0).permutation(len(targets))
    fitted, others = np.array_split(order, 2)
    promises = fit_promises(logits[fitted], targets[fitted], temperature)
    return measure(promises, logits[others], targets[others], temperature)


def measure_foreign(promises: Promises | None, logits: Logits, foreign: Logits) -> dict[str, Any]:
    """Return how well the score of unfamiliar images separates foreign ones from those of the model's kind.

    Args:
        promises: of the model, for the share that is flagged; None without one.
        logits: float32 (N, C) of familiar images.
        foreign: float32 (M, C) of foreign ones.

    Returns:
        `images` M; `auroc`; `unfamiliar`, the share of the foreign images that is flagged, or None.
    """
    scores = familiarity(foreign)
    limit = promises.familiar if promises else None
    return {
        "images": len(foreign),
        "auroc": auroc(familiarity(logits), scores),
        "unfamiliar": None if limit is None else _rate(scores < limit),
    }


def in_words(result: dict[str, Any]) -> list[str]:
    """Return the result of `measure` as lines."""
    lines = []
    if result["answered"]:
        lines.append(
            f"confident answers: {result['answered']['value']:.1%} of {result['images']:,} pictures, wrong "
            f"{_percent(result['error'])}; promised at most {result['promised_error']:.1%}"
        )
    if result["coverage"]:
        lines.append(
            f"prediction sets: the true class in {_percent(result['coverage'])}, {result['set_size']:.2f} classes on "
            f"average; promised {result['promised_coverage']:.0%}"
        )
    if result["unfamiliar"]:
        lines.append(f"flagged as unfamiliar: {_percent(result['unfamiliar'])}")
    return lines or [f"{result['fitted_on']:,} pictures are too few to promise anything"]


def _percent(rate: dict[str, float]) -> str:
    return f"{rate['value']:.2%} ({rate['low']:.2%} to {rate['high']:.2%})"


def _rate(hits: np.ndarray[Any, np.dtype[np.bool_]]) -> dict[str, float]:
    count, total = int(hits.sum()), len(hits)
    low, high = exact_interval(count, total)
    return {"value": count / max(1, total), "low": low, "high": high}
