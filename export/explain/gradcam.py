"""Grad-CAM: heat map of the image regions whose last-stage features speak for a class.

Selvaraju et al., "Grad-CAM: Visual Explanations from Deep Networks via Gradient-based Localization", 2017
(arXiv:1610.02391), equations 1 and 2.
"""

from __future__ import annotations

from typing import Any

import torch

from models.common.errors import HalftoneError


def on_grid(features: Any) -> bool:
    """Return True if the features of a network's last stage lie on a grid, as Grad-CAM needs them."""
    return isinstance(features, torch.Tensor) and features.ndim == 4


def grad_cam(module: torch.nn.Module, planes: torch.Tensor, classes: torch.Tensor | None) -> tuple[torch.Tensor, ...]:
    """Compute class-discriminative maps from the features that the last stage passes to the head.

    Args:
        module: a timm network with `forward_features` and `forward_head`, in evaluation mode.
        planes: float32 (N, 3, S, S), normalised.
        classes: int64 (N,) output index to explain for each image; None for the best class.

    Returns:
        Maps float32 (N, H, W), zero or more, on the grid of the last stage; logits float32 (N, classes).

    Raises:
        HalftoneError: the network's last features do not lie on a grid.
    """
    network: Any = module
    with torch.no_grad():
        features = network.forward_features(planes)
    if not on_grid(features):
        raise HalftoneError(
            f"Grad-CAM needs features on a grid, and those of {type(module).__name__} lie on none: choose a "
            "convolutional network, Swin, PVT, or a ViT (attention rollout)"
        )
    # Everything before the last stage's output is a constant, so that only the head is differentiated.
    features.requires_grad_()
    with torch.enable_grad():
        logits = network.forward_head(features)
        chosen = logits.detach().argmax(dim=1) if classes is None else classes
        (gradients,) = torch.autograd.grad(logits.gather(1, chosen[:, None]).sum(), features)
    # Swin and others keep their channels last, and images are square.
    _, first, second, third = features.shape
    last = first == second != third or getattr(module, "output_fmt", "NCHW") == "NHWC"
    channel, rows, columns = (3, 1, 2) if last else (1, 2, 3)
    weights = gradients.mean(dim=(rows, columns), keepdim=True)
    return (weights * features.detach()).sum(dim=channel).relu(), logits.detach()
