"""Weights of torchvision's networks under timm's names: MobileNet, EfficientNet and ViT. Its ResNets have timm's names.

torchvision numbers the layers of its convolutional networks in the same order as timm, so that they are mapped by
position and every shape is verified. Its transformers are mapped by name.
"""

from __future__ import annotations

import torch
from timm.layers.conv2d_same import Conv2dSame

from models.catalog import catalogue
from models.common.errors import HalftoneError
from models.common.text import printable
from models.spec import Architecture

State = dict[str, torch.Tensor]

MARKS = ("features.0.0.weight", "encoder.pos_embedding")
"""Tensors that torchvision's convolutional networks and transformers have, and timm's don't."""

TORCH_PADDING = "_torch"
"""Ending of the catalogue's names for networks that pad evenly, as PyTorch does, not at the end, as TensorFlow does."""

EPS = {"mobilenetv3_small": 1e-3, "mobilenetv3_large": 1e-3}
"""Epsilon of torchvision's batch norms where it differs from that of timm's network."""

_LEAVES = ("weight", "bias", "running_mean", "running_var")
_COUNTER = "num_batches_tracked"

_TRANSFORMER = (
    ("class_token", "cls_token"),
    ("encoder.pos_embedding", "pos_embed"),
    ("conv_proj.", "patch_embed.proj."),
    ("encoder.layers.encoder_layer_", "blocks."),
    ("encoder.ln.", "norm."),
    (".ln_1.", ".norm1."),
    (".ln_2.", ".norm2."),
    (".self_attention.in_proj_", ".attn.qkv."),
    (".self_attention.out_proj.", ".attn.proj."),
    (".mlp.0.", ".mlp.fc1."),
    (".mlp.3.", ".mlp.fc2."),
    # Before torchvision 0.13.
    (".mlp.linear_1.", ".mlp.fc1."),
    (".mlp.linear_2.", ".mlp.fc2."),
    ("heads.head.", "head."),
)


def of_torchvision(state: State) -> bool:
    """Return True if the tensors have names that torchvision gives and timm doesn't."""
    return any(mark in state for mark in MARKS)


def to_timm(state: State, network: Architecture, module: torch.nn.Module) -> State:
    """Return the tensors under timm's names, so that timm's network computes what torchvision's does.

    Args:
        state: tensors for which `of_torchvision` is True, with any number of classes.
        network: entry of the catalogue.
        module: the network as timm builds it; on the meta device is enough.

    Raises:
        HalftoneError: the tensors are not those of this network, or timm's network pads in another way.
    """
    if MARKS[1] in state:
        return {_renamed(name): value for name, value in state.items()}
    if any(isinstance(layer, Conv2dSame) for layer in module.modules()):
        raise _other_padding(network)
    named = _by_position(state, network, module)
    if network.name in EPS:
        _adapt_norms(named, module, EPS[network.name])
    return named


def _renamed(name: str) -> str:
    for theirs, ours in _TRANSFORMER:
        name = name.replace(theirs, ours)
    return name


def _other_padding(network: Architecture) -> HalftoneError:
    other = f"{network.name}{TORCH_PADDING}"
    fix = (
        f"use --model {other}, which pads as they do"
        if other in catalogue()
        else "no architecture of the catalogue pads as they do"
    )
    return HalftoneError(
        f"the weights have torchvision's names, and torchvision pads the images of each layer evenly, unlike "
        f"{network.name}: {fix}"
    )


def _by_position(state: State, network: Architecture, module: torch.nn.Module) -> State:
    own = module.state_dict()
    ours = [name for name in own if not name.endswith(_COUNTER)]
    theirs = sorted((name for name in state if not name.endswith(_COUNTER)), key=_position)
    if len(ours) != len(theirs):
        raise HalftoneError(
            f"the weights have torchvision's names and {len(theirs)} tensors, but {network.name} has {len(ours)}: "
            "name the architecture that they were trained with"
        )
    named = {name: torch.zeros((), dtype=torch.int64) for name in own if name.endswith(_COUNTER)}
    for our_name, their_name in zip(ours, theirs, strict=True):
        value, expected = state[their_name], own[our_name].shape
        # timm has a 1 x 1 convolution in place of a linear layer before the head.
        if value.dim() == 2 and len(expected) == 4:
            value = value[:, :, None, None]
        if value.shape != expected and not our_name.startswith(f"{network.head}."):
            raise HalftoneError(
                f"the weights have torchvision's names, and {printable(their_name)} has the shape "
                f"{tuple(value.shape)}, but {network.name} needs {tuple(expected)}: name the architecture that they "
                "were trained with"
            )
        named[our_name] = value
    return named


def _position(name: str) -> tuple[tuple[int, int, str], ...]:
    """Return a key that sorts the names as torchvision executes the layers: numbers by value, the classifier last."""
    parts = name.split(".")
    place = [(1, 0, part) for part in parts[:1]] if parts[0] == "classifier" else [(0, 0, parts[0])]
    for part in parts[1:]:
        if part.isdigit():
            place.append((0, int(part), ""))
        else:
            place.append((1, _LEAVES.index(part) if part in _LEAVES else 0, part))
    return tuple(place)


def _adapt_norms(state: State, module: torch.nn.Module, eps: float) -> None:
    """Scale the batch norms' weights so that they give with timm's epsilon what they gave with another."""
    for name, layer in module.named_modules():
        if isinstance(layer, torch.nn.BatchNorm2d):
            variance = state[f"{name}.running_var"].double()
            factor = ((variance + layer.eps) / (variance + eps)).sqrt()
            state[f"{name}.weight"] = (state[f"{name}.weight"] * factor).float()
