"""Batch sizes that a plan is built for."""

from __future__ import annotations

from dataclasses import dataclass

from models.common.errors import HalftoneError


@dataclass(frozen=True, kw_only=True)
class Profile:
    """Smallest, most important and largest batch of a plan.

    Raises:
        HalftoneError: the sizes are not 1 <= minimum <= optimum <= maximum.
    """

    minimum: int = 1
    """Smallest batch; smaller batches are padded to it."""

    optimum: int = 8
    """The batch that the plan is optimised for."""

    maximum: int = 64
    """Largest batch; larger batches are split."""

    def __post_init__(self) -> None:
        sizes = (self.minimum, self.optimum, self.maximum)
        if not all(isinstance(size, int) for size in sizes) or not 1 <= self.minimum <= self.optimum <= self.maximum:
            raise HalftoneError(
                "the batch sizes must be 1 <= --min-batch <= --opt-batch <= --max-batch, not "
                f"{self.minimum}, {self.optimum} and {self.maximum}"
            )
