"""Parameter groups and optimisers: two learning rates, factors per layer, weight decay where it belongs."""

from __future__ import annotations

from typing import Any

import torch

from models.spec import Architecture
from training.config.recipe import Optimisation, Transfer
from training.optim.transfer import HEAD, rate_factors, stage_of


def parameter_groups(
    module: torch.nn.Module, network: Architecture, optimisation: Optimisation, transfer: Transfer, *, pretrained: bool
) -> list[dict[str, Any]]:
    """All parameters in groups of equal rate and decay; `peak_lr` is what the schedule's factor multiplies.

    Norms, biases and every other parameter of one dimension are not decayed, nor are those that the network itself
    excludes (class token, position embedding, relative position tables).

    Args:
        module: the network; frozen parameters are in the groups too, for they may be unfrozen later.
        network: its catalogue entry.
        optimisation: rates and weight decay.
        transfer: factors per layer.
        pretrained: False: the backbone learns at the head's rate.
    """
    factors = rate_factors(module, network, transfer, pretrained=pretrained)
    backbone_lr = optimisation.backbone_lr if pretrained else optimisation.head_lr
    exempt: set[str] = getattr(module, "no_weight_decay", set)()
    groups: dict[tuple[float, float], dict[str, Any]] = {}
    for name, parameter in module.named_parameters():
        rate = optimisation.head_lr if stage_of(network, name) == HEAD else backbone_lr * factors[name]
        decay = 0.0 if parameter.ndim <= 1 or name in exempt else optimisation.weight_decay
        group = groups.setdefault((rate, decay), {"params": [], "lr": rate, "peak_lr": rate, "weight_decay": decay})
        group["params"].append(parameter)
    return list(groups.values())


def build_optimiser(groups: list[dict[str, Any]], config: Optimisation) -> torch.optim.Optimizer:
    """The optimiser of the configuration over those groups."""
    if config.optimiser == "sgd":
        return torch.optim.SGD(groups, momentum=config.momentum, nesterov=config.momentum > 0)
    # One kernel a group instead of a dozen. Not for SGD, whose fused kernel leaves its first momentum undefined where
    # fp16 overflows, and can't take parameters that begin to learn later.
    fused = True if any(parameter.is_cuda for group in groups for parameter in group["params"]) else None
    return torch.optim.AdamW(groups, fused=fused)


def set_rates(optimiser: torch.optim.Optimizer, factor: float) -> None:
    """Give every group its peak rate times the factor."""
    for group in optimiser.param_groups:
        group["lr"] = group["peak_lr"] * factor


def head_rate(optimiser: torch.optim.Optimizer) -> float:
    """The highest present learning rate, the one to show."""
    return max(float(group["lr"]) for group in optimiser.param_groups)
