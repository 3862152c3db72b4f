"""Detection of a loss or gradient that is NaN or infinite, with its most likely cause."""

from __future__ import annotations

import math
from collections.abc import Iterator

import torch

from models.common.errors import HalftoneError

SMALLEST_SCALE = 2.0**-10


class DivergedError(HalftoneError):
    """The loss or the gradient is NaN or infinite; the weights are those of the previous step."""


def bad_loss(
    value: float, *, location: str, module: torch.nn.Module, images: torch.Tensor, dtype: torch.dtype, previous: float
) -> DivergedError:
    """Return the error for a loss that is NaN or infinite.

    Args:
        value: the loss.
        location: the step, such as `epoch 3, step 120`.
        module: the network, to search for the cause.
        images: the batch, to search for the cause.
        dtype: of the arithmetic.
        previous: mean loss of the epoch so far; NaN at its start.
    """
    return _diverged(f"the loss is {value} in {location}", _cause(module, images, dtype, previous))


def check_gradient(norm: float, *, location: str, scale: float | None) -> None:
    """Raise an error if the gradient is not finite and no lower loss scale can help.

    Args:
        norm: of all gradients together.
        location: the step, for the message.
        scale: the loss scale of fp16, which an overflow reduces; None without one.

    Raises:
        DivergedError: the norm is NaN or infinite without a loss scale, or at the smallest one.
    """
    if math.isfinite(norm):
        return
    if scale is None:
        raise _diverged(f"the gradient's norm is {norm} in {location}", _TOO_FAST)
    if scale < SMALLEST_SCALE:
        raise _diverged(f"the gradient overflows in {location} at every loss scale", _HALF)


_TOO_FAST = (
    "most likely the learning rate is too high: lower --head-lr and --backbone-lr by 3 to 10 times, or add "
    "--warmup-epochs"
)
_HALF = "most likely fp16 overflows: use --amp bf16 or --amp off"


def _cause(module: torch.nn.Module, images: torch.Tensor, dtype: torch.dtype, previous: float) -> str:
    if not bool(torch.isfinite(images).all()):
        return "the normalised pictures contain NaN: mean or std of the input is wrong; check the catalogue entry"
    damaged = [name for name, value in _untouched(module) if not bool(torch.isfinite(value.float()).all())]
    if damaged:
        return f"the weights already contain NaN (first {damaged[0]}): start from other --weights"
    if dtype == torch.float16:
        return _HALF
    if math.isnan(previous):
        return f"this is the first step of the epoch: {_TOO_FAST}"
    return f"{_TOO_FAST} (the mean loss was {previous:.3g} before)"


def _untouched(module: torch.nn.Module) -> Iterator[tuple[str, torch.Tensor]]:
    """Yield the tensors that the current step can't have changed: weights, and statistics of frozen batch norms."""
    yield from module.named_parameters()
    for prefix, child in module.named_modules():
        if not child.training:
            yield from ((f"{prefix}.{name}", value) for name, value in child.named_buffers(recurse=False))


def _diverged(what: str, cause: str) -> DivergedError:
    return DivergedError(
        f"{what}: stopped before the weights were changed; {cause}; then start again with --restart, "
        "because changed settings make another run"
    )
