"""Image classifiers of Hugging Face transformers: the network of timm that computes the same, and its names of tensors.

The networks differ in names only: transformers keeps the query, key and value of an attention apart, and merges Swin's
patches at the end of a stage instead of at the start of the next.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import torch

from models.common.errors import HalftoneError
from models.common.text import printable

State = dict[str, torch.Tensor]
Rules = tuple[tuple[str, str], ...]


@dataclass(frozen=True, kw_only=True)
class Kind:
    """One class of transformers."""

    sizes: Mapping[str, Any]
    """Settings of `config.json` that choose the network, with transformers' defaults."""

    networks: Mapping[tuple[Any, ...], str]
    """Values of `sizes`, in their order, to timm's model."""

    rules: Rules
    """Regular expressions and what replaces them in each tensor's name, one after the other."""

    fixed: Mapping[str, Any] = field(default_factory=dict)
    """Settings that timm's network has no others of, with transformers' defaults."""

    positions: bool = True
    """True if the weights are for images of `image_size` only."""

    head_scale: float = 1.0
    """Factor on the head, to undo what timm's network divides it by."""


_BLOCK: Rules = (
    (r"\.attention\.attention\.(query|key|value)\.", r".attn.\1."),
    (r"\.attention\.self\.(query|key|value)\.", r".attn.\1."),
    (r"\.attention\.self\.relative_position", r".attn.relative_position"),
    (r"\.attention\.output\.dense\.", r".attn.proj."),
    (r"\.layernorm_before\.", r".norm1."),
    (r"\.layernorm_after\.", r".norm2."),
    (r"\.intermediate\.dense\.", r".mlp.fc1."),
    (r"(\.\d+)\.output\.dense\.", r"\1.mlp.fc2."),
)

_VIT: Rules = (
    (r"^(vit|deit)\.", ""),
    (r"^embeddings\.cls_token$", "cls_token"),
    (r"^embeddings\.distillation_token$", "dist_token"),
    (r"^embeddings\.position_embeddings$", "pos_embed"),
    (r"^embeddings\.patch_embeddings\.projection\.", "patch_embed.proj."),
    (r"^encoder\.layer\.", "blocks."),
    *_BLOCK,
    (r"^layernorm\.", "norm."),
    (r"^(cls_)?classifier\.", "head."),
    (r"^distillation_classifier\.", "head_dist."),
)

_SWIN: Rules = (
    (r"^swin\.", ""),
    (r"^embeddings\.patch_embeddings\.projection\.", "patch_embed.proj."),
    (r"^embeddings\.norm\.", "patch_embed.norm."),
    (r"^encoder\.layers\.0\.downsample\.", "layers.1.downsample."),
    (r"^encoder\.layers\.1\.downsample\.", "layers.2.downsample."),
    (r"^encoder\.layers\.2\.downsample\.", "layers.3.downsample."),
    (r"^encoder\.layers\.", "layers."),
    *_BLOCK,
    (r"^layernorm\.", "norm."),
    (r"^classifier\.", "head.fc."),
)

_CONVNEXT: Rules = (
    (r"^convnext\.", ""),
    (r"^embeddings\.patch_embeddings\.", "stem.0."),
    (r"^embeddings\.layernorm\.", "stem.1."),
    (r"^encoder\.stages\.(\d+)\.downsampling_layer\.", r"stages.\1.downsample."),
    (r"^encoder\.stages\.(\d+)\.layers\.", r"stages.\1.blocks."),
    (r"\.dwconv\.", ".conv_dw."),
    (r"(blocks\.\d+)\.layernorm\.", r"\1.norm."),
    (r"\.pwconv(\d)\.", r".mlp.fc\1."),
    (r"\.layer_scale_parameter$", ".gamma"),
    (r"^layernorm\.", "head.norm."),
    (r"^classifier\.", "head.fc."),
)

_RESNET: Rules = (
    (r"^resnet\.embedder\.embedder\.convolution\.", "conv1."),
    (r"^resnet\.embedder\.embedder\.normalization\.", "bn1."),
    *((rf"^resnet\.encoder\.stages\.{stage}\.layers\.", f"layer{stage + 1}.") for stage in range(4)),
    (r"\.shortcut\.convolution\.", ".downsample.0."),
    (r"\.shortcut\.normalization\.", ".downsample.1."),
    *((rf"\.layer\.{layer}\.convolution\.", f".conv{layer + 1}.") for layer in range(3)),
    *((rf"\.layer\.{layer}\.normalization\.", f".bn{layer + 1}.") for layer in range(3)),
    (r"^classifier\.1\.", "fc."),
)

_VIT_SIZES = {
    "hidden_size": 768,
    "num_hidden_layers": 12,
    "num_attention_heads": 12,
    "intermediate_size": 3072,
    "patch_size": 16,
}
_WIDTHS = {
    "tiny": (192, 12, 3, 768),
    "small": (384, 12, 6, 1536),
    "base": (768, 12, 12, 3072),
    "large": (1024, 24, 16, 4096),
    "huge": (1280, 32, 16, 5120),
}
_PATCHES = {"tiny": (16,), "small": (8, 16, 32), "base": (8, 16, 32), "large": (14, 16, 32), "huge": (14,)}
_ACTS = {"hidden_act": "gelu", "num_channels": 3}

_DEIT = Kind(
    sizes=_VIT_SIZES,
    networks={(*_WIDTHS[width], 16): f"deit_{width}_distilled_patch16_224" for width in ("tiny", "small", "base")},
    rules=_VIT,
    fixed=_ACTS,
)

_SWINS = {
    ("tiny", 7): (96, (2, 2, 6, 2), (3, 6, 12, 24)),
    ("small", 7): (96, (2, 2, 18, 2), (3, 6, 12, 24)),
    ("base", 7): (128, (2, 2, 18, 2), (4, 8, 16, 32)),
    ("base", 12): (128, (2, 2, 18, 2), (4, 8, 16, 32)),
    ("large", 7): (192, (2, 2, 18, 2), (6, 12, 24, 48)),
    ("large", 12): (192, (2, 2, 18, 2), (6, 12, 24, 48)),
}

_CONVNEXTS = {
    "atto": ((2, 2, 6, 2), 40),
    "femto": ((2, 2, 6, 2), 48),
    "pico": ((2, 2, 6, 2), 64),
    "nano": ((2, 2, 8, 2), 80),
    "tiny": ((3, 3, 9, 3), 96),
    "small": ((3, 3, 27, 3), 96),
    "base": ((3, 3, 27, 3), 128),
    "large": ((3, 3, 27, 3), 192),
    "xlarge": ((3, 3, 27, 3), 256),
}

_RESNETS = {
    18: ("basic", (2, 2, 2, 2)),
    26: ("bottleneck", (2, 2, 2, 2)),
    34: ("basic", (3, 4, 6, 3)),
    50: ("bottleneck", (3, 4, 6, 3)),
    101: ("bottleneck", (3, 4, 23, 3)),
    152: ("bottleneck", (3, 8, 36, 3)),
}

KINDS: Mapping[str, Kind] = {
    "ViTForImageClassification": Kind(
        sizes=_VIT_SIZES,
        networks={
            (*_WIDTHS[width], patch): f"vit_{width}_patch{patch}_224" for width in _WIDTHS for patch in _PATCHES[width]
        },
        rules=_VIT,
        fixed=_ACTS,
    ),
    # Without a teacher, only the class token is read; timm's network takes the mean of two heads.
    "DeiTForImageClassification": Kind(
        sizes=_DEIT.sizes, networks=_DEIT.networks, rules=_DEIT.rules, fixed=_DEIT.fixed, head_scale=2.0
    ),
    "DeiTForImageClassificationWithTeacher": _DEIT,
    "SwinForImageClassification": Kind(
        sizes={
            "embed_dim": 96,
            "depths": (2, 2, 6, 2),
            "num_heads": (3, 6, 12, 24),
            "window_size": 7,
            "image_size": 224,
            "patch_size": 4,
        },
        networks={
            (*sizes, window, 32 * window, 4): f"swin_{width}_patch4_window{window}_{32 * window}"
            for (width, window), sizes in _SWINS.items()
        },
        rules=_SWIN,
        fixed=_ACTS | {"mlp_ratio": 4.0, "use_absolute_embeddings": False},
    ),
    "ConvNextForImageClassification": Kind(
        sizes={"depths": (3, 3, 9, 3), "hidden_sizes": (96, 192, 384, 768), "patch_size": 4},
        networks={
            (depths, tuple(width * 2**stage for stage in range(4)), 4): f"convnext_{name}"
            for name, (depths, width) in _CONVNEXTS.items()
        },
        rules=_CONVNEXT,
        fixed=_ACTS,
        positions=False,
    ),
    "ResNetForImageClassification": Kind(
        sizes={
            "layer_type": "bottleneck",
            "depths": (3, 4, 6, 3),
            "hidden_sizes": (256, 512, 1024, 2048),
            "embedding_size": 64,
        },
        networks={
            (
                kind,
                depths,
                tuple((64 if kind == "basic" else 256) * 2**stage for stage in range(4)),
                64,
            ): f"resnet{depth}"
            for depth, (kind, depths) in _RESNETS.items()
        },
        rules=_RESNET,
        fixed={
            "hidden_act": "relu",
            "num_channels": 3,
            "downsample_in_first_stage": False,
            "downsample_in_bottleneck": False,
        },
        positions=False,
    ),
}
"""Classes by the name that `architectures` of `config.json` has."""

_ATTENTION = re.compile(r"(.+\.attn\.)(query|key|value)\.(weight|bias)")
_PARTS = ("query", "key", "value")
_CONSTANT = "relative_position_index"


def timm_model(kind: str, config: Mapping[str, Any]) -> str:
    """Return the name of timm's model that computes what a class of transformers does with these settings.

    Args:
        kind: a key of `KINDS`.
        config: content of `config.json`.

    Raises:
        HalftoneError: timm has no such network.
    """
    described = KINDS[kind]
    for name, value in described.fixed.items():
        if config.get(name, value) != value:
            raise HalftoneError(
                f"its {kind} has {name}={printable(config[name])}, and timm's networks have {value}: train an "
                "architecture of the catalogue (`python -m models`) instead"
            )
    chosen = tuple(_tupled(config.get(name, default)) for name, default in described.sizes.items())
    if chosen not in described.networks:
        shape = ", ".join(f"{name}={printable(value)}" for name, value in zip(described.sizes, chosen, strict=True))
        raise HalftoneError(
            f"timm has no network with the sizes of its {kind} ({shape}); those of {_short(described.networks)} are "
            "read: use a model of one of these"
        )
    return described.networks[chosen]


def _tupled(value: Any) -> Any:
    return tuple(map(_tupled, value)) if isinstance(value, list | tuple) else value


def _short(networks: Mapping[tuple[Any, ...], str]) -> str:
    names = list(dict.fromkeys(networks.values()))
    return f"{', '.join(names[:-1])} and {names[-1]}"


def to_timm(state: State, kind: str, module: torch.nn.Module) -> State:
    """Return the tensors under timm's names and in timm's shapes; those of no known name keep theirs.

    Args:
        state: tensors of transformers' class `kind`.
        kind: a key of `KINDS`.
        module: timm's network, with as many outputs.
    """
    described = KINDS[kind]
    own = module.state_dict()
    named = _joined({_renamed(name, described.rules): value for name, value in state.items()})
    # Constants that timm computes itself.
    named = {name: value for name, value in named.items() if not name.endswith(_CONSTANT) or name in own}
    for name, expected in own.items():
        if name.endswith(".qkv.bias") or (described.head_scale != 1 and name.startswith("head_dist.")):
            # An attention without bias, or a second head, which is not read.
            named.setdefault(name, torch.zeros_like(expected))
        elif name in named and named[name].ndim == 2 and expected.ndim == 4:
            # A linear layer, for which timm has a 1 x 1 convolution.
            named[name] = named[name][:, :, None, None]
    scaled = {name: value * described.head_scale for name, value in named.items() if name.startswith("head.")}
    return named | scaled if described.head_scale != 1 else named


def _renamed(name: str, rules: Rules) -> str:
    for pattern, replacement in rules:
        name = re.sub(pattern, replacement, name)
    return name


def _joined(state: State) -> State:
    """Return the state with the query, key and value of each attention as one tensor."""
    rest: State = {}
    attentions: dict[str, State] = {}
    for name, value in state.items():
        if found := _ATTENTION.fullmatch(name):
            attentions.setdefault(f"{found[1]}qkv.{found[3]}", {})[found[2]] = value
        else:
            rest[name] = value
    for name, parts in attentions.items():
        if len({part.shape[1:] for part in parts.values()}) == 1 and len(parts) == len(_PARTS):
            rest[name] = torch.cat([parts[part] for part in _PARTS])
    return rest
