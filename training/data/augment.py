"""Random changes to training pictures; every one is determined by a seed, so that a run can be repeated and resumed.

A decoded picture goes through: random crop (or the evaluation's), resize, flips, a policy (RandAugment or AutoAugment,
from torchvision), geometry, colour, blur, noise and random erasing (from albumentations). Steps that are off cost
nothing, nor does importing them. The resize is the antialiased one that evaluation uses, because networks notice the
difference to the cheaper resize of albumentations. `python -m training.preview` shows what comes out.
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
from training.config.augment import MAGNITUDES, AugmentConfig, Range

__all__ = ["Augment", "AugmentConfig", "EvaluationView", "build_augment", "random_box"]

Augment = Callable[[Pixels, int], Pixels]
"""From uint8 RGB (H, W, 3) and a seed >= 0 to uint8 RGB (S, S, 3)."""

CROP_ATTEMPTS = 10

# With the paper's 0.3 to 3.3 a rectangle of the largest area would not fit, at which albumentations 2.0.8 fails.
ERASE_RATIO = (0.5, 2.0)


@dataclass(frozen=True)
class EvaluationView:
    """What validation and serving see, behind the interface of an augmentation: the seed changes nothing."""

    spec: InputSpec

    def __call__(self, image: Pixels, seed: int) -> Pixels:
        """uint8 (H, W, 3) to uint8 (S, S, 3)."""
        return fit(image, self.spec)


def build_augment(config: AugmentConfig, spec: InputSpec) -> Augment:
    """The training view: from a decoded picture and a seed to the network's input.

    Args:
        config: what is varied.
        spec: the network's input, of 16 pixels or more.

    Returns:
        A picklable function of (uint8 (H, W, 3), seed) to uint8 (S, S, 3). The result depends on its arguments alone
        and no global random state is touched.
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
            # One generator for all steps; `set_random_seed` would give every step the same numbers.
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

        # torchvision draws from torch's global generator: lend it one of known state, and give back the old one.
        state = torch.get_rng_state()
        torch.default_generator.manual_seed(seed)
        try:
            return np.asarray(self._policy(Image.fromarray(np.ascontiguousarray(pixels))))
        finally:
            torch.set_rng_state(state)


def random_box(
    width: int, height: int, scale: Range, ratio: Range, draw: np.random.Generator
) -> tuple[float, float, float, float]:
    """A random rectangle within a picture (Szegedy et al., arXiv:1409.4842), in fractions of pixels.

    Args:
        width: of the picture, in pixels.
        height: of the picture, in pixels.
        scale: range of the share of the area, drawn evenly.
        ratio: range of width / height, drawn evenly on a logarithmic scale.
        draw: where the random numbers come from.

    Returns:
        (left, top, right, bottom); the largest centred one whose ratio is allowed where ten draws do not fit.
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
    # Otherwise it asks the network at import whether there is a newer version.
    os.environ.setdefault("NO_ALBUMENTATIONS_UPDATE", "1")
    import albumentations
    import cv2

    # Loader processes keep the cores busy already, and OpenCV's threads do not survive a fork.
    cv2.setNumThreads(0)
    return albumentations.Compose([*_geometry(config, fill), *_colour(config), *_damage(config)])


def _uses_albumentations(config: AugmentConfig) -> list[bool]:
    c = config
    geometry = (c.rotate, c.shift, c.zoom, c.shear, c.perspective)
    return [
        value > 0
        for value in (*geometry, c.brightness, c.contrast, c.saturation, c.hue, c.grey, c.blur, c.noise, c.erase)
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
                p=1.0,
            )
        )
    if config.perspective:
        steps.append(alb.Perspective(scale=(0.0, config.perspective), fill=tuple(fill), p=1.0))
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
                p=1.0,
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
    if config.erase:
        steps.append(alb.Erasing(scale=config.erase_area, ratio=ERASE_RATIO, fill="random", p=config.erase))
    return steps
