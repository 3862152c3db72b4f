"""Likeness of images to those of the pretraining: how much better than bare pixels the frozen features tell classes.

Each image is classified by its nearest neighbours among the others, once by the features of the pretrained network and
once by its pixels. Features of similar images tell classes far better than pixels; features of images unlike those of
the pretraining hardly do.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch

from training.frozen.features import Plain

PICTURES = 300
"""Images that suffice: the accuracies have a standard error of 3 points or less then."""

FEWEST = 20
"""Fewer images measure nothing: they count as similar."""

SIMILAR = 2.0
"""Odds ratio from which images count as similar; docs/training.md has what was measured."""

NEIGHBOURS = 5


@dataclass(frozen=True, kw_only=True)
class Likeness:
    """Accuracy of the nearest neighbours, by features and by pixels."""

    features: float
    """Share of the images that the others classify right by frozen features, in (0, 1)."""

    pixels: float
    """The same by pixels."""

    pictures: int
    """Number of images measured."""

    @property
    def odds_ratio(self) -> float:
        """Return how many times better the odds of a right answer are by features than by pixels."""
        return self.features / (1 - self.features) / (self.pixels / (1 - self.pixels))

    @property
    def similar(self) -> bool:
        """True if the images are similar to those of the pretraining."""
        return self.pictures < FEWEST or self.odds_ratio >= SIMILAR

    def __str__(self) -> str:
        return (
            f"of {self.pictures} pictures, the {NEIGHBOURS} nearest of the others classify {self.features:.1%} right "
            f"by frozen features and {self.pixels:.1%} by bare pixels, {self.odds_ratio:.1f} times the odds; similar "
            f"from {SIMILAR:g}"
        )


def measure_likeness(plain: Plain) -> Likeness:
    """Measure the likeness of images to those that a network was pretrained on.

    Args:
        plain: features of the images by that network; unreadable ones are left out.
    """
    readable = torch.tensor(plain.readable)
    classes, count = torch.tensor(plain.targets)[readable], int(readable.sum())
    pixels = torch.tensor(plain.thumbnails).flatten(1)[readable].float()
    by_features = neighbours_right(_cosine(plain.features.flatten(1)[readable]), classes)
    by_pixels = neighbours_right(_proximity(pixels), classes)
    # Half an image more on either side keeps the odds finite.
    return Likeness(features=(by_features + 0.5) / (count + 1), pixels=(by_pixels + 0.5) / (count + 1), pictures=count)


def neighbours_right(similarity: torch.Tensor, targets: torch.Tensor) -> int:
    """Return how many images have the class of most of their nearest neighbours; the nearest breaks ties.

    Args:
        similarity: float32 (N, N) of every pair; the diagonal is not used.
        targets: int64 (N,), classes from 0.
    """
    count = len(similarity)
    if count < 2:
        return 0
    others = similarity.clone().fill_diagonal_(-torch.inf)
    nearest = others.topk(min(NEIGHBOURS, count - 1)).indices
    weights = 1 + torch.arange(nearest.shape[1], 0, -1) / (2 * NEIGHBOURS**2)
    votes = torch.zeros(count, int(targets.max()) + 1)
    votes.scatter_add_(1, targets[nearest], weights.expand(count, -1))
    return int((votes.argmax(dim=1) == targets).sum())


def _cosine(vectors: torch.Tensor) -> torch.Tensor:
    directions = torch.nn.functional.normalize(vectors - vectors.mean(dim=0), dim=1)
    return directions @ directions.T


def _proximity(vectors: torch.Tensor) -> torch.Tensor:
    return -torch.cdist(vectors, vectors)
