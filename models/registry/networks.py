"""Any network of timm's registry as an `Architecture`, by its name with the prefix `timm:`.

The input is that of the published weights, or timm's default; parameters and MACs are counted on a network without
memory for its tensors. Needs torch and timm, which take seconds to load.
"""

from __future__ import annotations

import difflib
import functools
import warnings
from typing import Any, get_args

import timm
import torch
from timm.models import get_pretrained_cfg
from torch.utils.flop_counter import FlopCounterMode

from models.common.errors import HalftoneError
from models.common.text import printable
from models.registry.stages import divide
from models.spec import ATTENTION, TIMM, Architecture, InputSpec, Interpolation

CLASSES = 1000
"""Outputs of the networks whose parameters are counted."""

SCENARIO = "of timm's registry, outside the curated choice"

MOST_NAMED = 10
"""Tags that a message names."""


@functools.cache
def network(name: str) -> Architecture:
    """Describe the network of timm with that name.

    Args:
        name: `timm:MODEL` or `timm:MODEL.TAG`, as `timm.list_models` has them.

    Returns:
        Its entry; the name has the tag of the weights, timm's default without one.

    Raises:
        HalftoneError: timm has no such model; the message suggests the most similar names. Or the network is no
            classifier of square RGB images.
    """
    timm_name = _registered(name.removeprefix(TIMM))
    try:
        with torch.device("meta"), warnings.catch_warnings(action="ignore"):
            module: Any = timm.create_model(timm_name, num_classes=CLASSES).eval()
            if not hasattr(module, "reset_classifier"):
                raise HalftoneError("it is an encoder without a classifier: choose another model")
            spec = _input(module.pretrained_cfg)
            parameters, macs = sum(each.numel() for each in module.parameters()), _macs(module, spec.size)
            family = _family(module)
            stages, head = divide(module, CLASSES)
    # The networks of timm have hundreds of authors.
    except Exception as error:
        if isinstance(error, HalftoneError):
            raise HalftoneError(f"{TIMM}{timm_name} can't be used: {error}") from None
        reason = f"{type(error).__name__}: {printable(str(error).partition(chr(10))[0])}"
        raise HalftoneError(
            f"{TIMM}{timm_name} can't be used as a classifier of images of its published size ({reason}): choose "
            "another model of timm, or an architecture of the catalogue (`python -m models`)"
        ) from None
    return Architecture(
        name=f"{TIMM}{timm_name}",
        family=family,
        timm_name=timm_name,
        input=spec,
        stages=stages,
        head=head,
        parameters=parameters,
        macs=macs,
        top1=None,
        top1_source="",
        scenario=SCENARIO,
    )


def _registered(name: str) -> str:
    """Return timm's name with the tag of the weights, if it has tags."""
    model, _, tag = name.partition(".")
    known = timm.list_models()
    if model not in known:
        similar = difflib.get_close_matches(model, known, n=3, cutoff=0.5)
        hint = f"did you mean {' or '.join(TIMM + each for each in similar)}? " if similar else ""
        raise HalftoneError(
            f'timm {timm.__version__} has no model {printable(model)!r}: {hint}`python -c "import timm; '
            'print(*timm.list_models())"` lists all'
        )
    tags = [each.partition(".")[2] for each in timm.list_models(f"{model}.*", include_tags=True)]
    if tag and tag not in tags:
        named = [f"{TIMM}{model}.{each}" for each in tags[:MOST_NAMED] if each]
        instead = f"choose {' or '.join(named)}, or omit the tag" if named else f"use {TIMM}{model}"
        raise HalftoneError(f"timm {timm.__version__} has no weights {printable(tag)!r} of {model}: {instead}")
    config: Any = get_pretrained_cfg(name)
    own = tag or (config and config.tag)
    return f"{model}.{own}" if own else model


def _input(config: dict[str, Any]) -> InputSpec:
    """Return the input of a pretrained configuration; where timm squashes the whole image, the centre is cut out."""
    channels, height, width = config["input_size"]
    if channels != 3 or height != width:
        raise HalftoneError(
            f"it sees images of {channels} x {height} x {width}, and Halftone makes RGB squares: choose another model"
        )
    interpolation = config["interpolation"]
    return InputSpec(
        size=height,
        interpolation=interpolation if interpolation in get_args(Interpolation) else "bicubic",
        crop_fraction=config["crop_pct"],
        mean=tuple(config["mean"]),
        std=tuple(config["std"]),
    )


def _macs(module: torch.nn.Module, size: int) -> int:
    # Not in inference mode: the counter follows gradients through some networks.
    with FlopCounterMode(display=False) as counter:
        module(torch.empty(1, 3, size, size))
    return int(counter.get_total_flops()) // 2


def _family(module: torch.nn.Module) -> str:
    """Return `ATTENTION` for a network with attention, and the name of timm's file for another."""
    attends = any(isinstance(getattr(each, "num_heads", None), int) for each in module.modules())
    return ATTENTION if attends else type(module).__module__.rpartition(".")[2]
