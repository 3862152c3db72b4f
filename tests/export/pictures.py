"""A small labelled data set on which a bundle's reference is always right, and networks that overflow FP16."""

from pathlib import Path

import numpy as np
import torch
from PIL import Image

from export.parity.images import sample_crops
from export.variants import load
from models.bundle.bundle import Bundle
from models.bundle.store import bundle_folder
from models.checkpoint import load_module, save_weights
from models.preprocess.transform import load as load_picture
from tests.export.trained import trained_bundle

PER_PHOTO = 2


def labelled_pictures(bundle: Bundle, folder: Path) -> Path:
    """`folder` with `train` and `val`: different crops of the sample photographs, classed as the reference has them."""
    reference = load(bundle, "torch-fp32", threads=2)
    for part, first in (("train", 41), ("val", 1)):
        crops = sample_crops(bundle.manifest.input, PER_PHOTO, first=first)
        for index, (pixels, _) in enumerate(crops):
            file = folder / f"{index}.png"
            folder.mkdir(parents=True, exist_ok=True)
            Image.fromarray(pixels).save(file)
            seen = load_picture(file.read_bytes(), bundle.manifest.input)
            label = bundle.manifest.label_ids[int(reference.run(seen[None]).argmax())]
            (folder / part / label).mkdir(parents=True, exist_ok=True)
            file.rename(folder / part / label / file.name)
    return folder


def overflowing(name: str, size: int) -> Bundle:
    """A new bundle whose network computes beyond FP16's range at one place, and divides it away at the next.

    In FP32 it answers as the network with its first random weights does.
    """
    bundle = trained_bundle(bundle_folder(name), name, size, trained=False)
    module = load_module(bundle)
    with torch.no_grad():
        if name == "resnet18":
            _scale_norm_and_conv(module.get_submodule("layer2.0"))
        else:
            _scale_values_and_projection(module.get_submodule("blocks.3.attn"))
    save_weights(bundle, module, made_by="a test")
    return bundle


def _scale_norm_and_conv(block: torch.nn.Module) -> None:
    """A rectifier lies between the two: it lets a positive factor through."""
    norm, conv = block.get_submodule("bn1"), block.get_submodule("conv2")
    for tensor in (norm.weight, norm.bias):
        tensor.mul_(1e5)  # type: ignore[operator]
    conv.weight.div_(1e5)  # type: ignore[operator]


def _scale_values_and_projection(attention: torch.nn.Module) -> None:
    """Attention averages its values: it lets a factor through."""
    qkv, projection = attention.get_submodule("qkv"), attention.get_submodule("proj")
    values = slice(2 * (len(np.asarray(qkv.bias.detach())) // 3), None)  # type: ignore[operator,union-attr]
    for tensor in (qkv.weight, qkv.bias):
        tensor[values].mul_(2e5)  # type: ignore[index]
    projection.weight.div_(2e5)  # type: ignore[operator]
