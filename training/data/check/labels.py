"""Labels that are probably wrong, by confident learning, and classes that features can't tell apart.

A linear probe on frozen features classifies every image without having seen it. Its errors at high confidence are where
labels are wrong (Northcutt, Jiang and Chuang 2021, "Confident Learning: Estimating Uncertainty in Dataset Labels",
https://arxiv.org/abs/1911.00068). They are ranked by the odds of the best other class over the label. The set that the
paper takes, with one threshold for each class, holds all images that look like another class: where classes are alike,
most of those are labelled right. Here the odds must exceed `ODDS`.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from models.common.statistics import softmax

FOLDS = 5

FEWEST = 5
"""Fewer different images of a class can't be in all folds: their labels are not judged."""

ODDS = 12.0
"""Calibrated odds from which a label counts as wrong; docs/training.md has what was measured."""

Groups = npt.NDArray[np.int64]


@dataclass(frozen=True, kw_only=True)
class Judgement:
    """Labels as the probe sees them."""

    odds: npt.NDArray[np.float64]
    """(N,): of the best other class over the label; 0 if the label is not judged."""

    suggested: npt.NDArray[np.int64]
    """(N,): that other class."""

    confusion: npt.NDArray[np.int64]
    """(C, C): label by the probe's answer, of the images that are judged."""

    @property
    def wrong(self) -> npt.NDArray[np.int64]:
        """Indices of the images whose label is probably wrong, the surest first."""
        order = np.argsort(-self.odds, kind="stable")
        return order[self.odds[order] > ODDS]

    @property
    def accuracy(self) -> float:
        """Share of the images that the probe answers as they are labelled, 0..1; 0 if none are judged."""
        return float(np.trace(self.confusion) / max(1, self.confusion.sum()))

    def in_words(self) -> str:
        """Return that share with what it is of, by which the number of wrong labels can be weighed."""
        judged = int(self.confusion.sum())
        if not judged:
            return f"none was judged, for which two classes need {FEWEST} different pictures each"
        return (
            f"a linear probe, trained on the other pictures, agrees with {self.accuracy:.1%} of the {judged:,} labels "
            "that were judged"
        )


def judge_labels(
    components: npt.NDArray[np.float32], targets: npt.NDArray[np.int64], groups: Groups, *, classes: int
) -> Judgement:
    """Compare every label with the answer of a probe that learned from the other folds.

    Args:
        components: float32 (N, K), of `Extractor.components`.
        targets: int64 (N,).
        groups: int64 (N,), equal for images that must be in one fold.
        classes: number of classes.
    """
    distinct = np.bincount(targets[np.unique(groups, return_index=True)[1]], minlength=classes)
    judged = np.flatnonzero((distinct >= FEWEST)[targets])
    odds, suggested = np.zeros(len(targets)), targets.copy()
    confusion = np.zeros((classes, classes), dtype=np.int64)
    present, labels = np.unique(targets[judged], return_inverse=True)
    if len(present) > 1:
        scores = out_of_fold(components[judged], labels, stratified_folds(labels, groups[judged], seed=0))
        probabilities = softmax(scores, _temperature(scores, labels))
        rows = np.arange(len(judged))
        own = probabilities[rows, labels]
        np.add.at(confusion, (present[labels], present[probabilities.argmax(axis=1)]), 1)
        probabilities[rows, labels] = 0
        suggested[judged] = present[probabilities.argmax(axis=1)]
        odds[judged] = probabilities.max(axis=1) / np.maximum(own, 1e-12)
    return Judgement(odds=odds, suggested=suggested, confusion=confusion)


def stratified_folds(
    targets: npt.NDArray[np.int64], groups: Groups, *, seed: int, folds: int = FOLDS
) -> npt.NDArray[np.int64]:
    """Return the fold of every image, int64 (N,); each class is spread over all, a group is within one.

    Args:
        targets: int64 (N,).
        groups: int64 (N,); a group counts as of the class of its first image.
        seed: another seed makes other folds.
        folds: their number.
    """
    generator = np.random.default_rng(seed)
    _, first, member = np.unique(groups, return_index=True, return_inverse=True)
    fold = np.empty(len(first), dtype=np.int64)
    for label in np.unique(targets[first]):
        of_class = generator.permutation(np.flatnonzero(targets[first] == label))
        fold[of_class] = (np.arange(len(of_class)) + generator.integers(folds)) % folds
    return fold[member]


def out_of_fold(
    components: npt.NDArray[np.float32], targets: npt.NDArray[np.int64], folds: npt.NDArray[np.int64]
) -> npt.NDArray[np.float64]:
    """Return the logits of every image, float64 (N, C), by linear discriminants of the other folds.

    Args:
        components: float32 (N, K).
        targets: int64 (N,), each of C classes in at least two folds.
        folds: int64 (N,).
    """
    points = components.astype(np.float64)
    logits = np.empty((len(points), int(targets.max()) + 1))
    for fold in np.unique(folds):
        held_out = folds == fold
        weights, bias = _discriminants(points[~held_out], targets[~held_out])
        logits[held_out] = points[held_out] @ weights + bias
    return logits


def _discriminants(
    points: npt.NDArray[np.float64], targets: npt.NDArray[np.int64]
) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    """Return weights (K, C) and biases (C,) of linear discriminant analysis with a shrunk covariance."""
    counts = np.bincount(targets)
    sums = np.zeros((len(counts), points.shape[1]))
    np.add.at(sums, targets, points)
    means = sums / counts[:, None]
    weights = np.asarray(np.linalg.solve(_covariance(points - means[targets]), means.T), dtype=np.float64)
    bias = np.log(counts / len(targets)) - 0.5 * (means.T * weights).sum(axis=0)
    return weights, np.asarray(bias)


def _covariance(centred: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """Return the covariance, shrunk towards equal variances as far as chance explains it (Ledoit and Wolf 2004)."""
    count, size = centred.shape
    sample = centred.T @ centred / count
    scale = np.trace(sample) / size
    distance = (sample**2).sum() - size * scale**2
    by_chance = ((centred**2).sum(axis=1) ** 2).sum() / count**2 - (sample**2).sum() / count
    share = min(1.0, by_chance / distance) if distance > 0 else 1.0
    # A hair more keeps images without any spread solvable.
    return np.asarray((1 - share) * sample + (share * scale + 1e-9) * np.eye(size))


def _temperature(logits: npt.NDArray[np.float64], targets: npt.NDArray[np.int64]) -> float:
    """Return the temperature at which the labels are likeliest; discriminants alone are far too confident."""
    from scipy.optimize import minimize_scalar

    rows = np.arange(len(targets))

    def loss(log_temperature: float) -> float:
        own = softmax(logits, float(np.exp(log_temperature)))[rows, targets]
        return float(-np.log(np.maximum(own, 1e-300)).mean())

    return float(np.exp(minimize_scalar(loss, bounds=(-2, 5), method="bounded").x))
