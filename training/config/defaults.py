"""Defaults that depend on the network and the data: its input, and the layers to train."""

from __future__ import annotations

from dataclasses import replace
from typing import Any, Literal

from models.common.errors import HalftoneError
from models.spec import TRANSFORMERS, Architecture, InputSpec
from training.config.recipe import Freeze, Recipe, Transfer

HEAD_BELOW, LATE_BELOW = 1000, 10_000

UNLIKE, UNLIKE_TRANSFORMER = 10.0, 3.0
"""Factors on the backbone's learning rate for images unlike those of the pretraining. Transformers diverge earlier."""


def input_spec(pretrained: InputSpec, transfer: Transfer) -> InputSpec:
    """Return a network's input: that of its pretraining with the changes of the configuration."""
    given = {"size": transfer.size, "crop_fraction": transfer.crop_fraction}
    changes: dict[str, Any] = {name: value for name, value in given.items() if value is not None}
    return replace(pretrained, **changes)


def resolve_freeze(
    freeze: Freeze, *, pictures: int, pretrained: bool, similar: bool = True
) -> Literal["head", "late", "full"]:
    """Return the layers to train, with `auto` resolved by the number of training images and their likeness.

    Args:
        freeze: the setting.
        pictures: number of training images.
        pretrained: False if the weights are random.
        similar: True if the images are similar to those of the pretraining.

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
        return "head" if similar else "late"
    return "late" if similar and pictures < LATE_BELOW else "full"


def resolve_transfer(
    recipe: Recipe, network: Architecture, *, pictures: int, pretrained: bool, similar: bool
) -> Recipe:
    """Return the recipe with `freeze` resolved, and for images unlike those of the pretraining with a higher rate.

    The pretrained features have far to go then. Only with `freeze` at `auto` is the recipe's rate raised.

    Args:
        recipe: the settings.
        network: entry of the catalogue.
        pictures: number of training images.
        pretrained: False if the weights are random.
        similar: True if the images are similar to those of the pretraining.

    Raises:
        HalftoneError: as `resolve_freeze`.
    """
    freeze = resolve_freeze(recipe.transfer.freeze, pictures=pictures, pretrained=pretrained, similar=similar)
    transfer, optimisation = replace(recipe.transfer, freeze=freeze), recipe.optimisation
    if recipe.transfer.freeze == "auto" and pretrained and not similar:
        factor = UNLIKE_TRANSFORMER if network.family in TRANSFORMERS else UNLIKE
        optimisation = replace(optimisation, backbone_lr=factor * optimisation.backbone_lr)
    return replace(recipe, transfer=transfer, optimisation=optimisation)
