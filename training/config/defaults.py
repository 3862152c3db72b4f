"""Defaults that depend on the network and the data: its input, and the layers to train."""

from __future__ import annotations

from dataclasses import replace
from typing import Any, Literal

from models.common.errors import HalftoneError
from models.spec import Architecture, InputSpec
from training.config.recipe import Freeze, Transfer

HEAD_BELOW, LATE_BELOW = 1000, 10_000


def input_spec(network: Architecture, transfer: Transfer) -> InputSpec:
    """Return the network's input: that of pretraining with the changes of the configuration."""
    given = {"size": transfer.size, "crop_fraction": transfer.crop_fraction}
    changes: dict[str, Any] = {name: value for name, value in given.items() if value is not None}
    return replace(network.input, **changes)


def resolve_freeze(freeze: Freeze, *, pictures: int, pretrained: bool) -> Literal["head", "late", "full"]:
    """Return the layers to train, with `auto` resolved by the number of training images.

    Args:
        freeze: the setting.
        pictures: number of training images.
        pretrained: False if the weights are random.

    Raises:
        HalftoneError: the setting would freeze layers with random weights.
    """
    if not pretrained:
        if freeze in ("head", "late"):
            raise HalftoneError(f"--freeze {freeze} would keep random weights untrained: use --freeze full")
        return "full"
    if freeze != "auto":
        return freeze
    if pictures < HEAD_BELOW:
        return "head"
    return "late" if pictures < LATE_BELOW else "full"
