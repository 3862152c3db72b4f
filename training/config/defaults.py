"""What is taken over and what learns, where the settings leave it open."""

from __future__ import annotations

from dataclasses import replace
from typing import Any, Literal

from models.common.errors import HalftoneError
from models.spec import Architecture, InputSpec
from training.config.recipe import Freeze, Transfer

HEAD_BELOW, LATE_BELOW = 1000, 10_000


def input_spec(network: Architecture, transfer: Transfer) -> InputSpec:
    """What the network shall see: as in pretraining but for what the configuration changes."""
    given = {"size": transfer.size, "crop_fraction": transfer.crop_fraction}
    changes: dict[str, Any] = {name: value for name, value in given.items() if value is not None}
    return replace(network.input, **changes)


def resolve_freeze(freeze: Freeze, *, pictures: int, pretrained: bool) -> Literal["head", "late", "full"]:
    """What `auto` means for so many training pictures.

    Raises:
        HalftoneError: layers with random weights would be frozen.
    """
    if not pretrained:
        if freeze in ("head", "late"):
            raise HalftoneError(f"--freeze {freeze} would keep random weights as they are: use --freeze full")
        return "full"
    if freeze != "auto":
        return freeze
    if pictures < HEAD_BELOW:
        return "head"
    return "late" if pictures < LATE_BELOW else "full"
