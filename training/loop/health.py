"""Stopping before a bad step: a loss or gradient that is no number, and what most likely made it so."""

from __future__ import annotations

import math
from collections.abc import Iterator

import torch

from models.common.errors import HalftoneError

SMALLEST_SCALE = 2.0**-10


class DivergedError(HalftoneError):
    """The loss or the gradient is NaN or infinite; the weights are those of the step before."""


def bad_loss(
    value: float, *, where: str, module: torch.nn.Module, images: torch.Tensor, dtype: torch.dtype, previous: float
) -> DivergedError:
    """The error for a loss that is NaN or infinite.

    Args:
        value: the loss.
        where: the place in the run, such as `epoch 3, step 120`.
        module: the network, to look for the cause in.
        images: the batch, to look for the cause in.
        dtype: of the arithmetic.
        previous: mean loss of the epoch so far; NaN at its start.
    """
    return _diverged(f"the loss is {value} in {where}", _cause(module, images, dtype, previous))


def check_gradient(norm: float, *, where: str, scale: float | None) -> None:
    """Stop where the gradient is no number.

    Args:
        norm: of all gradients together.
        where: the place in the run.
        scale: the loss scale of fp16, which lowers itself on an overflow; None without one.

    Raises:
        DivergedError: it is NaN or infinite and no loss scale can mend it.
    """
    if math.isfinite(norm):
        return
    if scale is None:
        raise _diverged(f"the gradient's norm is {norm} in {where}", _TOO_FAST)
    if scale < SMALLEST_SCALE:
        raise _diverged(f"the gradient overflows in {where} whatever the loss scale", _HALF)


_TOO_FAST = (
    "most likely the learning rate is too high: lower --head-lr and --backbone-lr by 3 to 10 times, or add "
    "--warmup-epochs"
)
_HALF = "most likely fp16 overflows: use --amp bf16 or --amp off"


def _cause(module: torch.nn.Module, images: torch.Tensor, dtype: torch.dtype, previous: float) -> str:
    if not bool(torch.isfinite(images).all()):
        return "the normalised pictures hold NaN: the input's mean and std are damaged; check the catalogue entry"
    damaged = [name for name, value in _untouched(module) if not bool(torch.isfinite(value.float()).all())]
    if damaged:
        return f"the weights hold NaN already (first {damaged[0]}): start from other --weights"
    if dtype == torch.float16:
        return _HALF
    if math.isnan(previous):
        return f"it is the epoch's first step: {_TOO_FAST}"
    return f"{_TOO_FAST} (the mean loss was {previous:.3g} before)"


def _untouched(module: torch.nn.Module) -> Iterator[tuple[str, torch.Tensor]]:
    """The weights, and the statistics that the present step can't have spoilt: those of frozen batch norms."""
    yield from module.named_parameters()
    for prefix, child in module.named_modules():
        if not child.training:
            yield from ((f"{prefix}.{name}", value) for name, value in child.named_buffers(recurse=False))


def _diverged(what: str, cause: str) -> DivergedError:
    return DivergedError(
        f"{what}: stopped before the weights were touched; {cause}; then start anew with --restart, "
        "since changed settings make another run"
    )
