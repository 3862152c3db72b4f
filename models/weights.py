"""Initial network of a training run: pretrained, random or given weights, and a head for the new classes."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from models.checkpoint import IMAGENET_CLASSES, build, fit_input_size, initialise, load_state
from models.checkpoint_file import read_weights
from models.common.errors import HalftoneError
from models.spec import NAMED_WEIGHTS, Architecture


@dataclass(frozen=True, kw_only=True)
class Start:
    """Initial network of a training run."""

    module: torch.nn.Module
    """FP32 on the CPU, in evaluation mode, with a head for the requested classes."""

    source: str
    """Origin of the weights, in words."""

    license: str
    """SPDX identifier of their licence."""

    pretrained: bool
    """False for random weights."""


def start(network: Architecture, weights: str, *, classes: int, size: int, seed: int, **options: Any) -> Start:
    """Build the network with its initial weights and a head for `classes`.

    The head of a file is kept if it has `classes` outputs, and otherwise replaced by a random one. The file of a
    transformer must have the published input size or the new one.

    Args:
        network: entry of the catalogue.
        weights: `pretrained`, `random`, or a file of `read_weights`.
        classes: number of outputs.
        size: side of the input in pixels.
        seed: of the randomly initialised parameters.
        options: passed to `timm.create_model`, such as `drop_rate` or `drop_path_rate`.

    Raises:
        HalftoneError: the weights are not available or do not fit, or the network does not support that size.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        if weights in NAMED_WEIGHTS:
            module = build(network, classes=classes if weights == "random" else IMAGENET_CLASSES, **options)
            source, license_ = initialise(module, network, weights)
        else:
            module, source, license_ = _from_file(network, Path(weights), size, options)
        head: Any = module.get_submodule(network.head)
        # timm scales the initial heads of some networks for 1,000 classes: for a few, the logits are far too large.
        if weights == "random" or head.out_features != classes:
            reset: Any = module.reset_classifier
            reset(classes)
        fit_input_size(module, network, size)
    return Start(module=module.eval(), source=source, license=license_, pretrained=weights != "random")


def _from_file(
    network: Architecture, path: Path, size: int, options: dict[str, Any]
) -> tuple[torch.nn.Module, str, str]:
    state = read_weights(path)
    bias = state.get(f"{network.head}.bias")
    if bias is None:
        raise HalftoneError(f"--weights {path} has no weights of {network.name} ({network.head}.bias is missing)")
    # Position embeddings have the input size that the file was trained at: most likely the new or the published size.
    module = build(network, classes=len(bias), **options)
    if size != network.input.size:
        resized = build(network, classes=len(bias), **options)
        fit_input_size(resized, network, size)
        if _same_shapes(resized, state) and not _same_shapes(module, state):
            module = resized
    load_state(module, state, str(path))
    return module, f"file {path.name}", "other"


def _same_shapes(module: torch.nn.Module, state: dict[str, torch.Tensor]) -> bool:
    return all(value.shape == state[name].shape for name, value in module.state_dict().items() if name in state)
