"""Heat maps for any bundle: attention rollout for Vision Transformers, Grad-CAM for other networks.

    maps = explain(open_bundle("efficientnet_lite0"), pixels)      # float32 (N, S, S) in 0..1

Loading the FP32 checkpoint with torch takes 1 s for EfficientNet-Lite0; a map takes about as long as a forward pass.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt
import torch
from timm.models import VisionTransformer

from export.explain.gradcam import grad_cam
from export.explain.rollout import AttentionRollout
from models.bundle.bundle import Bundle
from models.checkpoint import load_module
from models.common.errors import HalftoneError
from models.graph import Normalise
from models.preprocess.resample import Pixels

Method = Literal["Grad-CAM", "attention rollout"]
Maps = npt.NDArray[np.float32]


@dataclass(frozen=True, kw_only=True)
class Explanation:
    """Result of one call."""

    method: Method
    """Method of the maps; attention rollout gives the same map for every class."""

    maps: Maps
    """float32 (N, S, S) in 0..1: the hottest pixel of an image is 1; all are 0 if nothing speaks for the class."""

    logits: npt.NDArray[np.float32]
    """float32 (N, classes) of the FP32 network that was explained."""


class Explainer:
    """A bundle's network, loaded to explain its logits; thread-safe.

    Args:
        bundle: the opened bundle.

    Raises:
        BundleError: the weights are missing or not what the manifest says.
        HalftoneError: the weights do not fit the architecture.
    """

    def __init__(self, bundle: Bundle) -> None:
        spec, self._labels = bundle.manifest.input, bundle.manifest.labels
        self._shape = (spec.size, spec.size, 3)
        self._normalise = Normalise(spec)
        self._module = load_module(bundle).requires_grad_(False)
        self._rollout = AttentionRollout(self._module) if isinstance(self._module, VisionTransformer) else None
        self.method: Method = "attention rollout" if self._rollout else "Grad-CAM"

    def explain(self, pixels: Pixels, class_index: int | None = None) -> Explanation:
        """Compute heat maps and logits of images.

        Args:
            pixels: uint8 RGB of shape (N, S, S, 3) with N >= 1.
            class_index: output to explain; None for the best class of each image.

        Raises:
            ValueError: the pixels have another type or shape.
            HalftoneError: there is no such class, or the network's features do not lie on a grid.
        """
        if pixels.dtype != np.uint8 or pixels.ndim != 4 or pixels.shape[1:] != self._shape or not len(pixels):
            raise ValueError(
                f"pixels must be uint8 of shape (N, {', '.join(map(str, self._shape))}) with N >= 1, "
                f"not {pixels.dtype} of shape {pixels.shape}"
            )
        if class_index is not None and not 0 <= class_index < len(self._labels):
            raise HalftoneError(f"there is no class {class_index}: choose one from 0 to {len(self._labels) - 1}")
        planes = self._normalise(torch.tensor(pixels))
        if self._rollout:
            maps, logits = self._rollout(planes)
        else:
            classes = None if class_index is None else torch.full((len(pixels),), class_index)
            maps, logits = grad_cam(self._module, planes, classes)
        return Explanation(method=self.method, maps=_enlarge(maps, self._shape[0]), logits=logits.numpy())


def explain(bundle: Bundle, pixels: Pixels, class_index: int | None = None) -> Maps:
    """Return heat maps float32 (N, S, S) in 0..1 for pixels uint8 (N, S, S, 3), as a single `Explainer.explain`.

    Raises:
        ValueError, HalftoneError: as `Explainer`.
    """
    return Explainer(bundle).explain(pixels, class_index).maps


def _enlarge(maps: torch.Tensor, size: int) -> Maps:
    """Scale non-negative (N, H, W) to (N, size, size) in 0..1."""
    large = torch.nn.functional.interpolate(maps[:, None], (size, size), mode="bilinear", align_corners=False)[:, 0]
    highest = large.amax(dim=(1, 2), keepdim=True)
    # A map of zeros stays zero.
    return np.asarray((large / highest.clamp(min=torch.finfo(large.dtype).tiny)).clamp(0, 1).numpy())
