"""Weights of a `--weights` file: safetensors, or a checkpoint of torch.save as timm, Lightning and others write it."""

from __future__ import annotations

import argparse
import pathlib
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import safetensors
import safetensors.torch
import torch

from models.common.errors import HalftoneError
from models.common.text import printable

State = dict[str, torch.Tensor]

WRAPPERS = ("state_dict_ema", "state_dict", "model_state_dict", "model")
"""Keys that hold the weights within a checkpoint; the first that is there is read."""

PREFIXES = ("module.", "model.", "_orig_mod.")
"""What DataParallel and averages, Lightning, and torch.compile put before each name."""

PLAIN_OBJECTS: tuple[Any, ...] = (
    argparse.Namespace,
    pathlib.PosixPath,
    np.dtype,
    *{type(np.dtype(kind)) for kind in ("float64", "float32", "int64", "int32", "bool")},
    (np.dtype(float).type(0).__reduce__()[0], "numpy.core.multiarray.scalar"),
    (np.dtype(float).type(0).__reduce__()[0], "numpy._core.multiarray.scalar"),
)
"""What is loaded beside tensors: the command line in checkpoints of timm, paths, and accuracies as NumPy has them."""

_FORBIDDEN = re.compile(r"GLOBAL (\S+)")
"""In PyTorch's message: the type of an object that is not loaded."""


def read_weights(path: Path) -> State:
    """Read the tensors of a file, by their names in the network.

    A file of torch.save is read with `weights_only=True`, which runs no code from it. The weights may be wrapped
    (`WRAPPERS`), and names may have a prefix (`PREFIXES`): what most tensors have is removed, and those without it
    are left out, such as a loss's weights, metrics, or the count of an average. The kind of file is recognised by its
    content.

    Raises:
        HalftoneError: the file does not exist, or can't be read, or holds no weights.
    """
    if not path.is_file():
        raise HalftoneError(
            f"--weights {path}: no such file; name a .safetensors, .pth or .ckpt file, `pretrained` or `random`"
        )
    with path.open("rb") as file:
        start = file.read(2)
    # A zip archive, or a pickle as torch.save wrote it before version 1.6.
    if start == b"PK" or (start[:1] == b"\x80" and path.suffix != ".safetensors"):
        return _unwrapped(path, _load(path))
    try:
        return safetensors.torch.load_file(path)
    except safetensors.SafetensorError as error:
        raise HalftoneError(
            f"--weights {path} is neither a safetensors file ({error}) nor one of torch.save: name another file"
        ) from None


def _load(path: Path) -> Any:
    try:
        with torch.serialization.safe_globals(list(PLAIN_OBJECTS)):
            return torch.load(path, map_location="cpu", weights_only=True)
    # A damaged archive and a forbidden object raise many types.
    except Exception as error:
        found = _FORBIDDEN.search(str(error))
        reason = f"it holds {printable(found[1])}" if found else type(error).__name__
        raise HalftoneError(
            f"--weights {path} can't be read without running code from it ({reason}). If you trust it, write its "
            "weights alone, with the program that made it: `torch.save(model.state_dict(), 'weights.pth')`"
        ) from None


def _unwrapped(path: Path, found: Any) -> State:
    while isinstance(found, Mapping) and (
        key := next((key for key in WRAPPERS if isinstance(found.get(key), Mapping)), None)
    ):
        found = found[key]
    tensors = (
        {str(name): value for name, value in found.items() if isinstance(value, torch.Tensor)}
        if isinstance(found, Mapping)
        else {}
    )
    if not tensors:
        raise HalftoneError(
            f"--weights {path} holds no tensors by name, neither at its top nor in {', '.join(WRAPPERS)}: write them "
            "with `torch.save(model.state_dict(), 'weights.pth')`"
        )
    while prefix := next((prefix for prefix in PREFIXES if _most_have(prefix, tensors)), None):
        tensors = {name.removeprefix(prefix): value for name, value in tensors.items() if name.startswith(prefix)}
    return tensors


def _most_have(prefix: str, names: Mapping[str, torch.Tensor]) -> bool:
    return sum(name.startswith(prefix) for name in names) > len(names) / 2
