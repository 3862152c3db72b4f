"""Training state that changes from step to step and belongs in a checkpoint."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any

import torch
from timm.utils.model_ema import ModelEmaV3
from torch.nn.parallel import DistributedDataParallel

from training.config.recipe import Optimisation
from training.loop.checkpoints import State
from training.loop.distributed import World
from training.optim.precision import Precision
from training.optim.transfer import Freezing

Row = dict[str, float]
"""One epoch: epoch, lr, train_loss, train_top1, val_loss, val_top1, val_top5, images_per_second, seconds."""


@dataclass(kw_only=True)
class Position:
    """Progress of the run and its results so far."""

    epoch: int = 0
    """Finished epochs."""

    step: int = 0
    """Finished optimiser steps of the current epoch."""

    seconds: float = 0.0
    """Training time of the current epoch."""

    history: list[Row] = field(default_factory=list)

    best_epoch: int = 0
    """Number of the best epoch, from 1; 0 before the first."""

    def best(self) -> tuple[float, float]:
        """Return the score of the best epoch; lower than any score before the first epoch."""
        return score(self.history[self.best_epoch - 1]) if self.best_epoch else (-1.0, -math.inf)

    @property
    def name(self) -> str:
        """Name of the checkpoint; the names sort by progress."""
        return f"{self.epoch:05d}-{self.step:09d}"


def score(row: Row) -> tuple[float, float]:
    """Return validation accuracy and negated loss of an epoch; the largest pair is the best epoch."""
    return row["val_top1"], -row["val_loss"]


class Learner:
    """Network with its optimiser, loss scaler and weight average.

    Args:
        module: the network, on its device.
        freezing: the layers to train, by epoch.
        optimiser: over all its parameters.
        precision: number format, device and memory format.
        config: clipping and averaging.
        compiled: True to compile the forward pass.
        world: the processes that train together.
    """

    def __init__(
        self,
        module: torch.nn.Module,
        freezing: Freezing,
        optimiser: torch.optim.Optimizer,
        precision: Precision,
        config: Optimisation,
        *,
        compiled: bool = False,
        world: World,
    ) -> None:
        self.module, self.freezing, self.optimiser, self.precision = module, freezing, optimiser, precision
        self.clip, self.compiled, self.world = config.clip, compiled, world
        self.scaler = precision.scaler()
        self.ema = ModelEmaV3(module, decay=config.ema, use_warmup=True) if config.ema else None
        self.forward: Any = module

    def begin_epoch(self, epoch: int) -> None:
        """Unfreeze the layers to train in this epoch and wrap the network for it."""
        self.freezing.apply(self.module, epoch)
        self.freezing.train_mode(self.module, epoch)
        self.forward = self.module
        if self.world.size > 1:
            # Wrapped again in each epoch: it averages only the parameters that are trained when it is constructed.
            devices = [self.world.device] if self.world.device.type == "cuda" else None
            self.forward = DistributedDataParallel(self.module, device_ids=devices)
        if self.compiled:
            self.forward = torch.compile(self.forward)

    def clip_gradient(self) -> torch.Tensor:
        """Clip the gradients; return their norm before clipping, float32 on the device."""
        self.scaler.unscale_(self.optimiser)
        parameters = [parameter for parameter in self.module.parameters() if parameter.grad is not None]
        return torch.nn.utils.clip_grad_norm_(parameters, self.clip or math.inf).float()

    def update(self, step: int, *, finite: bool) -> None:
        """Apply the gradients and reset them.

        Args:
            step: global number of this step, from 0.
            finite: True if the norm is finite; otherwise no gradient is applied, and the loss scale of fp16 is reduced.
        """
        if self.scaler.is_enabled() or finite:
            self.scaler.step(self.optimiser)
            self.scaler.update()
            if self.ema is not None:
                self.ema.update(self.module, step=step)
        self.optimiser.zero_grad()

    def averaged(self) -> torch.nn.Module:
        """Return the network to validate and save: the weight average if there is one."""
        return self.module if self.ema is None else self.ema.module

    def resume_state(self) -> dict[str, Any]:
        """Return the state for `restore`, without the network's weights."""
        return {
            "optimiser": self.optimiser.state_dict(),
            "scaler": self.scaler.state_dict(),
            "ema": None if self.ema is None else self.ema.module.state_dict(),
        }

    def restore(self, weights: State, state: dict[str, Any]) -> None:
        """Load the state of a checkpoint."""
        self.module.load_state_dict(weights)
        # A checkpoint of another device, or one without the fused optimiser, has another value of `fused`.
        groups = [group | {"fused": self.optimiser.defaults["fused"]} for group in state["optimiser"]["param_groups"]]
        self.optimiser.load_state_dict(state["optimiser"] | {"param_groups": groups})
        if self.scaler.is_enabled():
            self.scaler.load_state_dict(state["scaler"])
        if self.ema is not None:
            self.ema.module.load_state_dict(state["ema"])
