"""Stages and head of any network of timm: the units of freezing and of learning rates, from timm's own description.

timm lists the modules after which features can be taken, with their reduction (`feature_info`). Where those features
have four resolutions or more, a stage ends with each of the last four. Where they have fewer, as in a ViT, the list is
divided into four equal parts. Of the few networks with fewer than four features, the blocks are. What
`reset_classifier` replaces is the head; what lies between the last feature and the head joins the last stage.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Any

import torch

STAGES = 4

_BLOCK = re.compile(r".+\.\d+(?=\.)")

Stages = tuple[tuple[str, ...], ...]


def divide(module: torch.nn.Module, classes: int) -> tuple[Stages, str]:
    """Return the four stages as prefixes of module and tensor names, and the name of the head's linear layer.

    Args:
        module: network of timm; its head is replaced by another of `classes` outputs.
        classes: number of outputs that it has.

    Raises:
        LookupError: the network has no head that timm can replace.
    """
    before = dict(module.named_modules())
    reset: Any = module.reset_classifier
    reset(classes)
    replaced = {name for name, child in module.named_modules() if before.get(name) is not child}
    heads = [name for name in replaced if _rows(module, name) == classes]
    if not heads:
        raise LookupError("no layer of its head has the number of classes as its rows")
    units = [name for name in _units(module) if not any(_within(name, head) for head in replaced)]
    return _prefixes(module, _stage_of_units(module, units)), min(heads, key=list(dict(module.named_modules())).index)


def _rows(module: torch.nn.Module, name: str) -> int | None:
    weight = getattr(module.get_submodule(name), "weight", None)
    return len(weight) if isinstance(weight, torch.Tensor) and weight.ndim > 1 else None


def _units(module: torch.nn.Module) -> list[str]:
    """Return the modules without children, and the tensors of the others, in the order of their definition."""
    names = []
    for name, child in module.named_modules():
        if name and next(child.children(), None) is None:
            names.append(name)
        else:
            names += [f"{name}.{each}".removeprefix(".") for each in _tensors(child)]
    return names


def _tensors(module: torch.nn.Module) -> list[str]:
    own = (*module.named_parameters(recurse=False), *module.named_buffers(recurse=False))
    return [name for name, _ in own]


def _within(name: str, prefix: str) -> bool:
    return f"{name}.".startswith(f"{prefix}.")


def _stage_of_units(module: torch.nn.Module, units: list[str]) -> dict[str, int]:
    """Return the stage, 0 to 3, of each unit before the head; dropout and the like after the last feature has none."""
    heavy = [index for index, name in enumerate(units) if _has_tensors(module, name)]
    ends = _ends(module, units)
    cuts = _cuts(ends) or [_end_of_block(units, heavy[len(heavy) * part // STAGES - 1]) for part in range(1, STAGES)]
    last = max([heavy[-1], *(end for end, _ in ends)])
    return {name: sum(index > cut for cut in cuts) for index, name in enumerate(units) if index <= last}


def _end_of_block(units: list[str], index: int) -> int:
    """Return the index of the last unit in the numbered block of a unit, such as `stages.1.blocks.2`; or its own."""
    block = _BLOCK.match(units[index])
    inside = [at for at, name in enumerate(units) if block and _within(name, block[0])]
    # A block as large as a stage is a stage itself, of which a part is cut off.
    return inside[-1] if inside and len(inside) < len(units) // (2 * STAGES) else index


def _has_tensors(module: torch.nn.Module, name: str) -> bool:
    try:
        return bool(_tensors(module.get_submodule(name)))
    except AttributeError:
        # A tensor of a module with children.
        return True


def _ends(module: torch.nn.Module, units: list[str]) -> list[tuple[int, Any]]:
    """Return the index of the last unit of each of timm's features, ascending, and the feature's reduction."""
    ends = []
    for feature in _features(module):
        inside = [index for index, name in enumerate(units) if _within(name, str(feature["module"]))]
        if inside:
            ends.append((inside[-1], feature.get("reduction")))
    return sorted(ends, key=lambda end: end[0])


def _features(module: Any) -> Iterable[Mapping[str, Any]]:
    found = getattr(module, "feature_info", None)
    # A list, or the object that timm makes of one.
    return getattr(found, "info", found) or ()


def _cuts(ends: list[tuple[int, Any]]) -> list[int] | None:
    """Return the last units of the first three stages; None for fewer than four features."""
    levels = list({reduction: end for end, reduction in ends}.values())
    if len(levels) >= STAGES:
        return levels[-STAGES:-1]
    if len(ends) < STAGES:
        return None
    return [ends[len(ends) * part // STAGES - 1][0] for part in range(1, STAGES)]


def _prefixes(module: torch.nn.Module, stages: Mapping[str, int], name: str = "") -> Stages:
    """Return the shortest prefixes of each stage below a module."""
    found: list[list[str]] = [[] for _ in range(STAGES)]
    within = module.get_submodule(name)
    for part in (*_tensors(within), *(child for child, _ in within.named_children())):
        path = f"{name}.{part}".removeprefix(".")
        inside = {stages.get(unit) for unit in _all_units(module, path)}
        if len(inside) == 1 and None not in inside:
            found[inside.pop() or 0].append(path)
        elif inside - {None}:
            for stage, below in enumerate(_prefixes(module, stages, path)):
                found[stage] += below
    return tuple(map(tuple, found))


def _all_units(module: torch.nn.Module, path: str) -> list[str]:
    """Return the units below a path, or itself."""
    try:
        inside = module.get_submodule(path)
    except AttributeError:
        return [path]
    if next(inside.children(), None) is None:
        return [path]
    return [f"{path}.{unit}" for unit in _units(inside)]
