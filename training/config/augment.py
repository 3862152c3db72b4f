"""Augmentation settings; `training.data.augment` applies them."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal, Self

from models.common.errors import HalftoneError

Policy = Literal["none", "randaugment", "autoaugment-imagenet", "autoaugment-cifar10", "autoaugment-svhn"]
Group = Literal["geometry", "colour", "damage"]
Range = tuple[float, float]

MAGNITUDES = 31
"""RandAugment's strengths: 0 to 30, as in torchvision."""


LIGHT_CROP = 0.8
"""Smallest share of a picture's area in the crops of a short run."""


@dataclass(frozen=True, kw_only=True)
class AugmentConfig:
    """Augmentation of the training images; probabilities and shares lie in [0, 1], and 0 switches a step off.

    Raises:
        HalftoneError: a value is outside its range.
    """

    crop_scale: Range = (0.35, 1.0)
    """Random crop: smallest and largest share of the picture's area; `1 1` uses the centre crop of evaluation."""

    crop_ratio: Range = (3 / 4, 4 / 3)
    """Random crop: smallest and largest width / height."""

    flip: float = 0.5
    """Probability of a left-right flip; use 0 if left and right differ in meaning, as in writing."""

    vertical_flip: float = 0.0
    """Probability of an upside-down flip, for pictures without a fixed orientation, such as satellite images."""

    policy: Policy = "none"
    """RandAugment (Cubuk et al., arXiv:1909.13719) or a policy of AutoAugment (Cubuk et al., arXiv:1805.09501)."""

    policy_ops: int = 2
    """RandAugment: operations per picture."""

    policy_magnitude: int = 9
    """RandAugment: strength from 0 to 30."""

    rotate: float = 0.0
    """Largest rotation in either direction in degrees, up to 180."""

    shift: float = 0.0
    """Largest shift as a share of the side, up to 1."""

    zoom: float = 0.0
    """Largest enlargement or reduction as a share, below 1."""

    shear: float = 0.0
    """Largest shear in either direction in degrees, below 90."""

    perspective: float = 0.0
    """Change of perspective: largest shift of a corner as a share of the side, below 0.5."""

    geometry_prob: float = 1.0
    """Probability of rotation, shift, zoom and shear together, and of a change of perspective."""

    brightness: float = 0.2
    """Brightness changes by a factor in [1 - x, 1 + x]."""

    contrast: float = 0.2
    """Contrast changes by a factor in [1 - x, 1 + x]."""

    saturation: float = 0.2
    """Saturation changes by a factor in [1 - x, 1 + x]."""

    hue: float = 0.0
    """Largest hue shift as a share of the colour circle, up to 0.5."""

    colour_prob: float = 1.0
    """Probability of the changes of brightness, contrast, saturation and hue together."""

    grey: float = 0.0
    """Probability of a conversion to grey."""

    blur: float = 0.0
    """Probability of a Gaussian blur."""

    blur_sigma: Range = (0.1, 2.0)
    """Standard deviation of the blur in pixels."""

    noise: float = 0.0
    """Probability of Gaussian noise."""

    noise_std: Range = (0.02, 0.1)
    """Standard deviation of the noise as a share of the full range."""

    iso_noise: float = 0.0
    """Probability of the noise of a camera's sensor at a high ISO speed, in colour and brightness."""

    erase: float = 0.0
    """Random erasing: probability that noise overwrites a rectangle (Zhong et al., arXiv:1708.04896)."""

    erase_area: Range = (0.02, 0.33)
    """Smallest and largest share of the area that is erased, up to 0.4."""

    one_of: tuple[Group, ...] = ()
    """Groups of which a picture gets one step at most, each with its own probability as long as they sum to 1 or less:
    `geometry` (affine, perspective), `colour` (jitter, grey), `damage` (blur, noise, ISO noise)."""

    def lightened(self) -> Self:
        """Return the settings without a policy, and with crops that hold most of the picture; without one, these."""
        if self.policy == "none":
            return self
        lowest, highest = self.crop_scale
        return replace(self, policy="none", crop_scale=(max(lowest, min(LIGHT_CROP, highest)), highest))

    def __post_init__(self) -> None:
        for name in ("flip", "vertical_flip", "grey", "blur", "noise", "iso_noise", "erase", "shift"):
            self._check(name, 0, 1)
        for name in ("brightness", "contrast", "saturation", "geometry_prob", "colour_prob"):
            self._check(name, 0, 1)
        for name, most in (("rotate", 180), ("shear", 89), ("zoom", 0.99), ("perspective", 0.49), ("hue", 0.5)):
            self._check(name, 0, most)
        self._check("policy_ops", 1, 16)
        self._check("policy_magnitude", 0, MAGNITUDES - 1)
        self._check_range("crop_scale", 1e-4, 1)
        self._check_range("crop_ratio", 0.01, 100)
        self._check_range("erase_area", 1e-3, 0.4)
        self._check_range("blur_sigma", 0.05, 100)
        self._check_range("noise_std", 0, 1)
        if len(set(self.one_of)) != len(self.one_of):
            raise HalftoneError(f"--augment.one-of must name each group once, not {' '.join(self.one_of)}")

    def _check(self, name: str, least: float, most: float) -> None:
        value = getattr(self, name)
        if not least <= value <= most:
            raise HalftoneError(f"--augment.{_flag(name)} must lie between {least:g} and {most:g}, not {value!r}")

    def _check_range(self, name: str, least: float, most: float) -> None:
        low, high = getattr(self, name)
        if not least <= low <= high <= most:
            raise HalftoneError(
                f"--augment.{_flag(name)} must be two ascending numbers between {least:g} and {most:g}, "
                f"not {low!r} {high!r}"
            )


def _flag(name: str) -> str:
    return name.replace("_", "-")
