"""Tricks of a recipe that an ablation takes out, or puts in where the recipe has them off."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

from models.common.errors import HalftoneError
from training.config.recipe import Recipe, Transfer

Change = Literal["taken out", "put in"]

WIDE_CROP, NARROW_CROP = (0.35, 1.0), (0.8, 1.0)
EMA_DECAY = 0.999


@dataclass(frozen=True, kw_only=True)
class Trick:
    """One trick, and the recipe that differs by it."""

    name: str

    change: Change
    """What was done to the recipe."""

    recipe: Recipe
    """Without the trick if it was taken out, with it if it was put in."""

    words: str
    """What the trick is, with its values."""


@dataclass(frozen=True)
class _Kind:
    words: Callable[[Recipe], str]
    is_on: Callable[[Recipe], bool]
    off: Callable[[Recipe], Recipe]
    on: Callable[[Recipe], Recipe]


def augmented(recipe: Recipe, **changes: Any) -> Recipe:
    """Return the recipe with other values of its augmentation."""
    return replace(recipe, augment=replace(recipe.augment, **changes))


def _steps(off: Mapping[str, float], on: Mapping[str, float]) -> _Kind:
    """Return a kind of augmentation that is on if one of its steps is."""

    def words(recipe: Recipe) -> str:
        values = {name: getattr(recipe.augment, name) for name in off}
        return ", ".join(f"{name} {value:g}" for name, value in values.items() if value)

    return _Kind(
        words=words,
        is_on=lambda recipe: any(getattr(recipe.augment, name) for name in off),
        off=lambda recipe: augmented(recipe, **off),
        on=lambda recipe: augmented(recipe, **on),
    )


def _value(part: str, name: str, *, off: Any, on: Callable[[Recipe], Any], words: str) -> _Kind:
    """Return a trick that is one value of a part of the recipe."""

    def changed(recipe: Recipe, value: Any) -> Recipe:
        return replace(recipe, **{part: replace(getattr(recipe, part), **{name: value})})

    def of(recipe: Recipe) -> Any:
        return getattr(getattr(recipe, part), name)

    return _Kind(
        words=lambda recipe: f"{words} {of(recipe)}",
        is_on=lambda recipe: of(recipe) != off,
        off=lambda recipe: changed(recipe, off),
        on=lambda recipe: changed(recipe, on(recipe)),
    )


def _crop_words(recipe: Recipe) -> str:
    low, high = recipe.augment.crop_scale
    return f"random crops of {low:g} to {high:g} of the area"


def _one_rate(recipe: Recipe) -> Recipe:
    transfer = replace(recipe.transfer, stage_multipliers=(1.0, 1.0, 1.0, 1.0), layer_decay=1.0)
    rate = recipe.optimisation.head_lr
    return replace(recipe, transfer=transfer, optimisation=replace(recipe.optimisation, backbone_lr=rate))


def _two_rates(recipe: Recipe) -> Recipe:
    return replace(
        recipe,
        transfer=replace(recipe.transfer, stage_multipliers=Transfer().stage_multipliers),
        optimisation=replace(recipe.optimisation, backbone_lr=recipe.optimisation.head_lr / 10),
    )


_WITHOUT_CROPS = (1.0, 1.0)
_MOVES = {"rotate": 0.0, "shift": 0.0, "zoom": 0.0, "shear": 0.0, "perspective": 0.0}
_COLOURS = {"brightness": 0.0, "contrast": 0.0, "saturation": 0.0, "hue": 0.0, "grey": 0.0}
_DAMAGE = {"blur": 0.0, "noise": 0.0, "iso_noise": 0.0}
_ROTATION_DEGREES = 15.0

_KINDS: dict[str, _Kind] = {
    "crops": _Kind(
        _crop_words,
        lambda recipe: recipe.augment.crop_scale != _WITHOUT_CROPS,
        lambda recipe: augmented(recipe, crop_scale=_WITHOUT_CROPS),
        lambda recipe: augmented(recipe, crop_scale=WIDE_CROP),
    ),
    "other_crops": _Kind(
        _crop_words,
        # Always put in, in place of the recipe's own crops: narrow ones for wide ones, and the reverse.
        lambda recipe: False,
        lambda recipe: recipe,
        lambda recipe: augmented(
            recipe, crop_scale=WIDE_CROP if recipe.augment.crop_scale == NARROW_CROP else NARROW_CROP
        ),
    ),
    "flip": _steps({"flip": 0.0}, {"flip": 0.5}),
    "geometry": _steps(_MOVES, {"rotate": _ROTATION_DEGREES, "shift": 0.1, "zoom": 0.1}),
    "colour": _steps(_COLOURS, {"brightness": 0.2, "contrast": 0.2, "saturation": 0.2}),
    "damage": _steps(_DAMAGE, {"blur": 0.1, "noise": 0.1}),
    "erasing": _steps({"erase": 0.0}, {"erase": 0.25}),
    "randaugment": _value("augment", "policy", off="none", on=lambda recipe: "randaugment", words="policy"),
    "mixup": _value("objective", "mixup", off=0.0, on=lambda recipe: 0.2, words="alpha"),
    "cutmix": _value("objective", "cutmix", off=0.0, on=lambda recipe: 1.0, words="alpha"),
    "smoothing": _value("objective", "smoothing", off=0.0, on=lambda recipe: 0.1, words="label smoothing"),
    "warmup": _value(
        "schedule", "warmup_epochs", off=0.0, on=lambda recipe: max(0.5, recipe.epochs / 20), words="epochs"
    ),
    "schedule": _value("schedule", "schedule", off="constant", on=lambda recipe: "cosine", words="rate:"),
    "two_rates": _Kind(
        lambda recipe: (
            f"{recipe.optimisation.backbone_lr:g} below the head's {recipe.optimisation.head_lr:g}, by stages"
        ),
        lambda recipe: _one_rate(recipe) != recipe,
        _one_rate,
        _two_rates,
    ),
    "ema": _value("optimisation", "ema", off=0.0, on=lambda recipe: EMA_DECAY, words="decay"),
    "drop_path": _value("transfer", "drop_path", off=0.0, on=lambda recipe: 0.1, words="stochastic depth"),
}

NAMES = tuple(_KINDS)


def tricks_of(recipe: Recipe, names: Sequence[str] = NAMES, *, pretrained: bool = True) -> list[Trick]:
    """Return the tricks by name, each taken out of the recipe or put in.

    Args:
        recipe: the recipe.
        names: of the tricks.
        pretrained: False if training starts from random weights, which all learn at one rate.

    Raises:
        HalftoneError: there is no such trick, or two rates are requested of random weights.
    """
    for name in names:
        if name not in _KINDS:
            raise HalftoneError(f"--tricks: there is no trick {name!r}: choose from {', '.join(NAMES)}")
    if not pretrained and "two_rates" in names:
        if tuple(names) != NAMES:
            raise HalftoneError("--tricks two_rates: random weights all learn at one rate; omit it")
        names = [name for name in names if name != "two_rates"]
    return [_trick(recipe, name) for name in names]


def _trick(recipe: Recipe, name: str) -> Trick:
    kind = _KINDS[name]
    if kind.is_on(recipe):
        return Trick(name=name, change="taken out", recipe=kind.off(recipe), words=kind.words(recipe))
    changed = kind.on(recipe)
    return Trick(name=name, change="put in", recipe=changed, words=kind.words(changed))
