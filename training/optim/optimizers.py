"""Optimisers and parameter groups: learning rates of head and backbone, factors per layer, weight decay."""

from __future__ import annotations

from typing import Any

import torch

from models.spec import Architecture
from training.config.recipe import Optimisation, Transfer
from training.optim.transfer import HEAD, rate_factors, stage_of


def parameter_groups(
    module: torch.nn.Module, network: Architecture, optimisation: Optimisation, transfer: Transfer, *, pretrained: bool
) -> list[dict[str, Any]]:
    """Return all parameters in groups of equal learning rate and weight decay; the schedule multiplies `peak_lr`.

    Norms, biases and all other parameters of one dimension have no weight decay, nor have those that the network
    excludes (class token, position embedding, relative position tables).

    Args:
        module: the network; frozen parameters are included, because they may be unfrozen later.
        network: its catalogue entry.
        optimisation: rates and weight decay.
        transfer: factors per layer.
        pretrained: False to train the backbone at the head's learning rate.
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
    """Construct the configured optimiser for the groups."""
    if config.optimiser == "sgd":
        return torch.optim.SGD(groups, momentum=config.momentum, nesterov=config.momentum > 0)
    # One kernel per group instead of a dozen. Not for SGD: its fused kernel leaves the first momentum undefined if fp16
    # overflows, and does not support parameters that are unfrozen later.
    devices = {parameter.device.type for group in groups for parameter in group["params"]}
    return torch.optim.AdamW(groups, fused=True if devices <= {"cuda", "cpu"} else None)


def set_rates(optimiser: torch.optim.Optimizer, factor: float) -> None:
    """Set the learning rate of every group to its peak times the factor."""
    for group in optimiser.param_groups:
        group["lr"] = group["peak_lr"] * factor


def head_rate(optimiser: torch.optim.Optimizer) -> float:
    """Return the highest current learning rate, for display."""
    return max(float(group["lr"]) for group in optimiser.param_groups)
