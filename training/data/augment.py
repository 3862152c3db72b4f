"""Augmentation of training images, determined by a seed, so that a run can be repeated and resumed.

The steps for a decoded image: random crop (or the evaluation's centre crop), resize, flips, a policy (RandAugment or
AutoAugment, from torchvision), geometry, colour, blur, noise and random erasing (from albumentations). A library is
imported only if one of its steps is on. The resize is the antialiased one of evaluation: networks are sensitive to the
difference from the cheaper resize of albumentations. `python -m training.preview` draws augmented images.
"""

from __future__ import annotations

import math
import os
import random
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from PIL import Image

from models.preprocess.resample import Pixels, resample
from models.preprocess.transform import fit
from models.spec import InputSpec
from training.config.augment import MAGNITUDES, AugmentConfig, Group, Range

Augment = Callable[[Pixels, int], Pixels]
"""Converts uint8 RGB (H, W, 3) and a seed >= 0 to uint8 RGB (S, S, 3)."""

CROP_ATTEMPTS = 10

# With the paper's 0.3 to 3.3, a rectangle of the largest area does not fit, and albumentations 2.0.8 fails.
ERASE_RATIO = (0.5, 2.0)


@dataclass(frozen=True)
class EvaluationView:
    """Preprocessing of validation and serving, with the interface of an augmentation; ignores the seed."""

    spec: InputSpec

    def __call__(self, image: Pixels, seed: int) -> Pixels:
        """Convert uint8 (H, W, 3) to uint8 (S, S, 3)."""
        return fit(image, self.spec)


def build_augment(config: AugmentConfig, spec: InputSpec) -> Augment:
    """Return the augmentation of a configuration.

    Args:
        config: the settings.
        spec: the network's input, of 16 pixels or more.

    Returns:
        A picklable function of (uint8 (H, W, 3), seed) to uint8 (S, S, 3). Its result depends on the arguments alone,
        and it leaves every global random state unchanged.
    """
    return _Augment(config, spec)


class _Augment:
    def __init__(self, config: AugmentConfig, spec: InputSpec) -> None:
        self._config, self._spec = config, spec
        self._fill = [round(255 * value) for value in spec.mean]
        self._policy = _policy(config, self._fill)
        self._pipeline = _pipeline(config, self._fill)

    def __call__(self, image: Pixels, seed: int) -> Pixels:
        draw = np.random.default_rng(seed)
        pixels = self._flipped(self._cropped(image, draw), draw)
        if self._policy is not None:
            pixels = self._with_policy(pixels, int(draw.integers(2**63)))
        if self._pipeline is not None:
            # One generator for all steps: `set_random_seed` gives every step the same numbers.
            self._pipeline.set_random_state(draw, random.Random(int(draw.integers(2**63))))
            pixels = self._pipeline(image=np.ascontiguousarray(pixels))["image"]
        return pixels

    def _cropped(self, image: Pixels, draw: np.random.Generator) -> Pixels:
        if self._config.crop_scale == (1.0, 1.0):
            return fit(image, self._spec)
        height, width = image.shape[:2]
        box = random_box(width, height, self._config.crop_scale, self._config.crop_ratio, draw)
        return resample(image, self._spec.size, box, self._spec.interpolation, plain=False)

    def _flipped(self, pixels: Pixels, draw: np.random.Generator) -> Pixels:
        across, down = draw.random(2)
        if across < self._config.flip:
            pixels = pixels[:, ::-1]
        return pixels[::-1] if down < self._config.vertical_flip else pixels

    def _with_policy(self, pixels: Pixels, seed: int) -> Pixels:
        import torch

        # torchvision draws from torch's global generator: seed it, then restore its state.
        state = torch.get_rng_state()
        torch.default_generator.manual_seed(seed)
        try:
            return np.asarray(self._policy(Image.fromarray(np.ascontiguousarray(pixels))))
        finally:
            torch.set_rng_state(state)


def random_box(
    width: int, height: int, scale: Range, ratio: Range, draw: np.random.Generator
) -> tuple[float, float, float, float]:
    """Draw a random rectangle within an image (Szegedy et al., arXiv:1409.4842), in fractions of pixels.

    Args:
        width: of the image, in pixels.
        height: of the image, in pixels.
        scale: range of the share of the area, drawn uniformly.
        ratio: range of width / height, drawn uniformly on a logarithmic scale.
        draw: random number generator.

    Returns:
        (left, top, right, bottom). If ten draws do not fit: the largest centred rectangle with an allowed ratio.
    """
    for _ in range(CROP_ATTEMPTS):
        area = width * height * draw.uniform(*scale)
        shape = math.exp(draw.uniform(math.log(ratio[0]), math.log(ratio[1])))
        w, h = math.sqrt(area * shape), math.sqrt(area / shape)
        if w <= width and h <= height:
            left, top = draw.uniform(0, width - w), draw.uniform(0, height - h)
            return left, top, min(left + w, width), min(top + h, height)
    shape = min(max(width / height, ratio[0]), ratio[1])
    w, h = min(width, height * shape), min(height, width / shape)
    return (width - w) / 2, (height - h) / 2, (width + w) / 2, (height + h) / 2


def _policy(config: AugmentConfig, fill: list[int]) -> Any:
    if config.policy == "none":
        return None
    from torchvision.transforms import v2

    options: dict[str, Any] = {"interpolation": v2.InterpolationMode.BILINEAR, "fill": fill}
    if config.policy == "randaugment":
        return v2.RandAugment(config.policy_ops, config.policy_magnitude, num_magnitude_bins=MAGNITUDES, **options)
    return v2.AutoAugment(v2.AutoAugmentPolicy(config.policy.removeprefix("autoaugment-")), **options)


def _pipeline(config: AugmentConfig, fill: list[int]) -> Any:
    if not any(_uses_albumentations(config)):
        return None
    # Without this variable, albumentations looks for a newer version on the network when it is imported.
    os.environ.setdefault("NO_ALBUMENTATIONS_UPDATE", "1")
    import albumentations
    import cv2

    # Loader processes keep the cores busy already, and OpenCV's threads do not survive a fork.
    cv2.setNumThreads(0)
    groups: dict[Group, list[Any]] = {
        "geometry": _geometry(config, fill),
        "colour": _colour(config),
        "damage": _damage(config),
    }
    steps = [step for name, group in groups.items() for step in _grouped(group, alone=name in config.one_of)]
    return albumentations.Compose([*steps, *_erasing(config)])


def _grouped(steps: list[Any], *, alone: bool) -> list[Any]:
    """Return the steps, or a single one that applies one of them at most, if they are to act alone."""
    import albumentations as alb

    if not alone or len(steps) < 2:
        return steps
    # It chooses a step by its probability's share of the sum.
    return [alb.OneOf(steps, p=min(1.0, sum(step.p for step in steps)))]


def _uses_albumentations(config: AugmentConfig) -> list[bool]:
    c = config
    geometry = (c.rotate, c.shift, c.zoom, c.shear, c.perspective)
    return [
        value > 0
        for value in (
            *geometry,
            c.brightness,
            c.contrast,
            c.saturation,
            c.hue,
            c.grey,
            c.blur,
            c.noise,
            c.iso_noise,
            c.erase,
        )
    ]


def _geometry(config: AugmentConfig, fill: list[int]) -> list[Any]:
    import albumentations as alb

    steps: list[Any] = []
    if config.rotate or config.shift or config.zoom or config.shear:
        steps.append(
            alb.Affine(
                rotate=(-config.rotate, config.rotate),
                translate_percent=(-config.shift, config.shift),
                scale=(1 - config.zoom, 1 + config.zoom),
                shear=(-config.shear, config.shear),
                fill=tuple(fill),
                p=config.geometry_prob,
            )
        )
    if config.perspective:
        steps.append(alb.Perspective(scale=(0.0, config.perspective), fill=tuple(fill), p=config.geometry_prob))
    return steps


def _colour(config: AugmentConfig) -> list[Any]:
    import albumentations as alb

    steps: list[Any] = []
    if config.brightness or config.contrast or config.saturation or config.hue:
        steps.append(
            alb.ColorJitter(
                brightness=(1 - config.brightness, 1 + config.brightness),
                contrast=(1 - config.contrast, 1 + config.contrast),
                saturation=(1 - config.saturation, 1 + config.saturation),
                hue=(-config.hue, config.hue),
                p=config.colour_prob,
            )
        )
    if config.grey:
        steps.append(alb.ToGray(p=config.grey))
    return steps


def _damage(config: AugmentConfig) -> list[Any]:
    import albumentations as alb

    steps: list[Any] = []
    if config.blur:
        steps.append(alb.GaussianBlur(blur_limit=0, sigma_limit=config.blur_sigma, p=config.blur))
    if config.noise:
        steps.append(alb.GaussNoise(std_range=config.noise_std, p=config.noise))
    if config.iso_noise:
        steps.append(alb.ISONoise(p=config.iso_noise))
    return steps


def _erasing(config: AugmentConfig) -> list[Any]:
    import albumentations as alb

    if not config.erase:
        return []
    return [alb.Erasing(scale=config.erase_area, ratio=ERASE_RATIO, fill="random", p=config.erase)]
