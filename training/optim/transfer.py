"""Transfer learning: frozen layers by epoch, and learning-rate factors by layer."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from timm.optim._param_groups import param_groups_layer_decay
from torch.nn.modules.batchnorm import _BatchNorm

from models.spec import Architecture
from training.config.defaults import resolve_freeze
from training.config.recipe import STAGES, Freeze, Transfer

HEAD = STAGES
"""The head's stage number; the backbone has 0 to 3."""

_FIRST_STAGE: dict[Freeze, int] = {"head": HEAD, "late": STAGES // 2, "full": 0}


def stage_of(network: Architecture, name: str) -> int:
    """Return the stage, 0 to 3, of a parameter or module by its name; `HEAD` if it belongs to no stage."""
    for stage, prefixes in enumerate(network.stages):
        if any(name == prefix or name.startswith(prefix + ".") for prefix in prefixes):
            return stage
    return HEAD


@dataclass(frozen=True, kw_only=True)
class Freezing:
    """Trained and frozen layers of a network by epoch."""

    network: Architecture
    first_stage: int
    """Lowest stage that is trained from the first epoch on."""

    unfreeze_every: int = 0
    freeze_norm: bool = False

    def lowest_trained(self, epoch: int) -> int:
        """Return the lowest stage that is trained in an epoch; `HEAD` if only the head is."""
        unfrozen = epoch // self.unfreeze_every if self.unfreeze_every else 0
        return max(0, self.first_stage - unfrozen)

    def apply(self, module: torch.nn.Module, epoch: int) -> None:
        """Require gradients for exactly the layers that are trained in this epoch."""
        lowest = self.lowest_trained(epoch)
        for name, parameter in module.named_parameters():
            parameter.requires_grad_(stage_of(self.network, name) >= lowest)

    def train_mode(self, module: torch.nn.Module, epoch: int) -> None:
        """Set trained layers to training mode and frozen ones to evaluation mode.

        The batch norms of a frozen layer must not adapt to the new images, and its dropout and drop-path must be off.
        """
        lowest = self.lowest_trained(epoch)
        module.train()
        for name, child in module.named_modules():
            frozen = name and stage_of(self.network, name) < lowest
            if frozen or (self.freeze_norm and isinstance(child, _BatchNorm)):
                child.eval()


def freezing(network: Architecture, config: Transfer, *, pictures: int, pretrained: bool) -> Freezing:
    """Return the configured freezing, with `auto` resolved."""
    freeze = resolve_freeze(config.freeze, pictures=pictures, pretrained=pretrained)
    return Freezing(
        network=network,
        first_stage=_FIRST_STAGE[freeze],
        unfreeze_every=config.unfreeze_every,
        freeze_norm=config.freeze_norm,
    )


def rate_factors(
    module: torch.nn.Module, network: Architecture, config: Transfer, *, pretrained: bool
) -> dict[str, float]:
    """Return the factor on the backbone's learning rate for every backbone parameter, by name.

    If layer-wise decay (BEiT, arXiv:2106.08254) is set, it applies with timm's grouping; otherwise the stage
    multipliers do. Random weights need no protection: without layer-wise decay, all their factors are 1.
    """
    names = [name for name, _ in module.named_parameters() if stage_of(network, name) != HEAD]
    if config.layer_decay < 1:
        layers = _layer_scales(module, config.layer_decay)
        return {name: layers[name] for name in names}
    multipliers = config.stage_multipliers if pretrained else (1.0,) * STAGES
    return {name: multipliers[stage_of(network, name)] for name in names}


def _layer_scales(module: torch.nn.Module, layer_decay: float) -> dict[str, float]:
    names = {id(parameter): name for name, parameter in module.named_parameters()}
    groups = param_groups_layer_decay(module, layer_decay=layer_decay)
    return {names[id(parameter)]: group["lr_scale"] for group in groups for parameter in group["params"]}
