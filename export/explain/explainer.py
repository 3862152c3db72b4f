"""Heat maps for any bundle: attention for Vision Transformers (rollout or single heads), Grad-CAM for other networks.

Networks whose last features lie on no grid, such as EVA's or MLP-Mixer's, get occlusion.

    maps = explain(open_bundle("efficientnet_lite0"), pixels)      # float32 (N, S, S) in 0..1

Loading the FP32 checkpoint with torch takes 1 s for EfficientNet-Lite0; a map takes about as long as a forward pass.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal, TypeGuard

import numpy as np
import numpy.typing as npt
import torch
from timm.layers.attention import Attention
from timm.models import VisionTransformer

from export.explain.gradcam import grad_cam, on_grid
from export.explain.heat import EVEN, occlusion
from export.explain.rollout import AttentionRollout
from models.bundle.bundle import Bundle
from models.checkpoint import load_module
from models.common.errors import HalftoneError
from models.graph import Normalise
from models.preprocess.resample import Pixels

Method = Literal["Grad-CAM", "attention rollout", "attention", "occlusion"]
Maps = npt.NDArray[np.float32]


@dataclass(frozen=True, kw_only=True)
class Explanation:
    """Result of one call."""

    method: Method
    """Method of the maps; attention rollout gives the same map for every class."""

    maps: Maps
    """float32 (N, S, S) in 0..1. Grad-CAM: the hottest pixel of an image is 1, and all are 0 if nothing speaks for the
    class; occlusion: alike. Attention: stretched, so that the coldest patch is 0 and the hottest pixel 1."""

    logits: npt.NDArray[np.float32]
    """float32 (N, classes) of the FP32 network that was explained."""


class Explainer:
    """A bundle's network, loaded to explain its logits; thread-safe.

    Args:
        bundle: the opened bundle.

    Raises:
        BundleError: the weights are missing or not what the manifest says.
        HalftoneError: the weights do not fit the architecture, or the bundle is an ensemble.
    """

    def __init__(self, bundle: Bundle) -> None:
        if bundle.manifest.members:
            names = " or ".join(member.name for member in bundle.manifest.members)
            raise HalftoneError(f"{bundle.name} is an ensemble, whose members see different things: explain {names}")
        spec, self._labels = bundle.manifest.input, bundle.manifest.labels
        self._temperature = bundle.manifest.temperature
        self._shape = (spec.size, spec.size, 3)
        self._normalise = Normalise(spec)
        self._module = load_module(bundle).requires_grad_(False)
        self._rollout = AttentionRollout(self._module) if _rolls_out(self._module) else None
        self.method: Method = "attention rollout" if self._rollout else self._by_features()

    def explain(self, pixels: Pixels, class_index: int | None = None) -> Explanation:
        """Compute heat maps and logits of images.

        Args:
            pixels: uint8 RGB of shape (N, S, S, 3) with N >= 1.
            class_index: output to explain; None for the best class of each image.

        Raises:
            ValueError: the pixels have another type or shape.
            HalftoneError: there is no such class.
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
        elif self.method == "occlusion":
            heats = [occlusion(self._logits, each, class_index, self._temperature).map for each in pixels]
            maps, logits = torch.tensor(np.stack(heats)), torch.tensor(self._logits(pixels))
        else:
            classes = None if class_index is None else torch.full((len(pixels),), class_index)
            maps, logits = grad_cam(self._module, planes, classes)
        large = _enlarge(maps, self._shape[0], stretch=self._rollout is not None)
        return Explanation(method=self.method, maps=large, logits=logits.numpy())

    def attention(self, pixels: Pixels, layer: int) -> Explanation:
        """Compute a map for every head of one layer of a Vision Transformer, each stretched to its own range.

        Args:
            pixels: uint8 RGB of shape (1, S, S, 3).
            layer: number of the layer, from 1 at the input.

        Returns:
            Maps (heads, S, S) instead of a map for each image.

        Raises:
            HalftoneError: the network has no attention from a single token, or no such layer.
        """
        if self._rollout is None:
            raise HalftoneError(
                f"--layer shows the attention of ViT and DeiT, and this network is a {type(self._module).__name__}: "
                f"omit it for {self.method}"
            )
        maps, logits = self._rollout.heads(self._normalise(torch.tensor(pixels)), layer)
        large = _enlarge(maps, self._shape[0], stretch=True)
        return Explanation(method="attention", maps=large, logits=logits.numpy())

    def _by_features(self) -> Method:
        size, network = self._shape[0], self._module
        forward_features: Any = network.forward_features
        with torch.no_grad():
            return "Grad-CAM" if on_grid(forward_features(torch.zeros(1, 3, size, size))) else "occlusion"

    def _logits(self, pixels: Pixels) -> npt.NDArray[np.float32]:
        with torch.no_grad():
            logits: torch.Tensor = self._module(self._normalise(torch.tensor(pixels)))
        return logits.numpy()


def _rolls_out(module: torch.nn.Module) -> TypeGuard[VisionTransformer]:
    """Return True for a Vision Transformer whose blocks have timm's plain attention."""
    return isinstance(module, VisionTransformer) and all(
        type(getattr(block, "attn", None)) is Attention for block in module.blocks
    )


def explain(bundle: Bundle, pixels: Pixels, class_index: int | None = None) -> Maps:
    """Return heat maps float32 (N, S, S) in 0..1 for pixels uint8 (N, S, S, 3), as a single `Explainer.explain`.

    Raises:
        ValueError, HalftoneError: as `Explainer`.
    """
    return Explainer(bundle).explain(pixels, class_index).maps


def _enlarge(maps: torch.Tensor, size: int, *, stretch: bool) -> Maps:
    """Scale non-negative (N, H, W) to (N, size, size) in 0..1.

    With `stretch`, the least value of a map becomes 0: every patch has a share of the attention, and without it an even
    map would be one bright plane. Values that differ by rounding alone all become 0.
    """
    if stretch:
        above = maps - maps.amin(dim=(1, 2), keepdim=True)
        maps = torch.where(above.amax(dim=(1, 2), keepdim=True) > EVEN * maps.amax(dim=(1, 2), keepdim=True), above, 0)
    large = torch.nn.functional.interpolate(maps[:, None], (size, size), mode="bilinear", align_corners=False)[:, 0]
    highest = large.amax(dim=(1, 2), keepdim=True)
    # A map of zeros stays zero.
    return np.asarray((large / highest.clamp(min=torch.finfo(large.dtype).tiny)).clamp(0, 1).numpy())
