"""Damage of known kind and strength to a network, to see what the parity gate notices.

A kind that changes weights or calibration returns a changed graph; one that changes outputs returns changed logits, and
so fits every variant. Strength 0 is no damage. A wrong resize has no strength.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace

import numpy as np
import numpy.typing as npt
import onnx
from onnx import numpy_helper
from PIL import Image

from export.onnx.metadata import layers
from export.runtime import Logits, Pixels
from models.preprocess.transform import fit
from models.spec import InputSpec, Interpolation

BATCH = 32
"""Images that the damage of a batch's places and neighbours takes for one batch."""

Graph = onnx.ModelProto
Array = npt.NDArray[np.float32]
GraphDamage = Callable[[Graph, float], Graph]
LogitsDamage = Callable[[Logits, float], Logits]
Resize = Callable[[Pixels, InputSpec], Pixels]


def _changed(graph: Graph, change: Callable[[int, Array], Array | None]) -> Graph:
    """Return a copy in which `change` replaced the weights of layers, numbered from 0; None leaves a layer as it is."""
    copy = onnx.ModelProto()
    copy.CopyFrom(graph)
    starts = {names[0] for names in layers(copy)}
    inputs = [node.input[1] for node in copy.graph.node if node.name in starts]
    tensors = {tensor.name: tensor for tensor in copy.graph.initializer}
    for number, name in enumerate(inputs):
        if name in tensors and (new := change(number, numpy_helper.to_array(tensors[name]))) is not None:
            tensors[name].CopyFrom(numpy_helper.from_array(new.astype(np.float32), name))
    return copy


def _noise(graph: Graph, strength: float) -> Graph:
    """Add normal noise to every weight, in standard deviations of its layer's weights."""
    generator = np.random.default_rng(0)
    return _changed(graph, lambda _, kernel: kernel + strength * kernel.std() * generator.normal(size=kernel.shape))


def _few_bits(graph: Graph, strength: float) -> Graph:
    """Round every weight to 10 - `strength` bits, a range for each layer."""
    steps = 2 ** (9 - strength)

    def rounded(_: int, kernel: Array) -> Array:
        scale = float(np.abs(kernel).max()) / steps
        return np.asarray(np.round(kernel / scale) * scale, np.float32)

    return _changed(graph, rounded) if strength else graph


def _channels(graph: Graph, share: float, factor: float) -> Graph:
    """Multiply a share of the output channels of the layer in the middle by a factor."""
    middle = len(layers(graph)) // 2

    def scaled(number: int, kernel: Array) -> Array | None:
        if number != middle:
            return None
        chosen = np.random.default_rng(0).permutation(len(kernel))[: round(share * len(kernel))]
        new = kernel.copy()
        new[chosen] *= factor
        return new

    return _changed(graph, scaled)


def _colours(graph: Graph, strength: float) -> Graph:
    """Mix each pixel's red and blue in the first layer; at 1 they are exchanged."""

    def mixed(number: int, kernel: Array) -> Array | None:
        if number:
            return None
        return np.asarray((1 - strength) * kernel + strength * kernel[:, ::-1], np.float32)

    return _changed(graph, mixed)


def _contrast(graph: Graph, strength: float) -> Graph:
    """Scale the first layer, as a wrong standard deviation of the normalisation does."""
    return _changed(graph, lambda number, kernel: None if number else kernel * np.float32(1 + strength))


def _stale(graph: Graph, strength: float) -> Graph:
    """Multiply the scale of every quantised activation by a log-normal factor, as a table of other weights is off."""
    copy, generator = onnx.ModelProto(), np.random.default_rng(0)
    copy.CopyFrom(graph)
    scales = {node.input[1] for node in copy.graph.node if node.op_type == "QuantizeLinear"}
    for tensor in copy.graph.initializer:
        if tensor.name in scales:
            new = numpy_helper.to_array(tensor) * np.exp(strength * generator.normal())
            tensor.CopyFrom(numpy_helper.from_array(new.astype(np.float32), tensor.name))
    return copy


def _other_filter(image: Pixels, spec: InputSpec) -> Pixels:
    other: Interpolation = "bicubic" if spec.interpolation == "bilinear" else "bilinear"
    return fit(image, replace(spec, interpolation=other))


def _sampled(resample: Image.Resampling) -> Resize:
    """Return a resize that looks at a few pixels only, as most libraries do unless told to antialias."""

    def resize(image: Pixels, spec: InputSpec) -> Pixels:
        height, width = image.shape[:2]
        scale = min(height, width) / spec.resize_to
        left, top = (width - scale * spec.size) / 2, (height - scale * spec.size) / 2
        corners = (scale, 0, left, 0, scale, top)
        size = (spec.size, spec.size)
        return np.asarray(Image.fromarray(image).transform(size, Image.Transform.AFFINE, corners, resample))

    return resize


def _exchanged(logits: Logits, pairs: float) -> Logits:
    """Exchange pairs of classes."""
    order = np.random.default_rng(0).permutation(logits.shape[1])[: 2 * round(pairs)]
    order = order[: len(order) // 2 * 2]
    new = logits.copy()
    new[:, order] = logits[:, order.reshape(-1, 2)[:, ::-1].ravel()]
    return new


def _moved(logits: Logits, share: float) -> Logits:
    """Move the first share of the classes on by one."""
    count = round(share * logits.shape[1])
    new = logits.copy()
    new[:, :count] = np.roll(logits[:, :count], 1, axis=1)
    return new


def _dead(logits: Logits, classes: float) -> Logits:
    """Give classes the lowest of all logits."""
    chosen = np.random.default_rng(0).permutation(logits.shape[1])[: round(classes)]
    new = logits.copy()
    new[:, chosen] = logits.min()
    return new


def _biased(logits: Logits, strength: float) -> Logits:
    """Add to the logits of one class, in standard deviations of all logits."""
    new = logits.copy()
    new[:, logits.shape[1] // 2] += strength * logits.std()
    return new


def _broken(logits: Logits, strength: float) -> Logits:
    """Give one class NaN on a share of the images."""
    new = logits.copy()
    new[: round(strength * len(logits)), 0] = np.nan
    return new


def _place(logits: Logits, places: float) -> Logits:
    """Give the last places of each batch the answer of the first one."""
    new = logits.copy()
    for start in range(0, len(logits), BATCH):
        part = new[start : start + BATCH]
        part[len(part) - min(round(places), len(part)) :] = part[0]
    return new


def _neighbours(logits: Logits, strength: float) -> Logits:
    """Mix each answer with the mean of its batch."""
    new = logits.copy()
    for start in range(0, len(logits), BATCH):
        part = new[start : start + BATCH]
        part[:] = (1 - strength) * part + strength * part.mean(axis=0)
    return new


GRAPHS: Mapping[str, tuple[GraphDamage, tuple[float, ...]]] = {
    "noise in the weights": (_noise, (0.01, 0.03, 0.1, 0.3)),
    "weights of few bits": (_few_bits, (3, 4, 5, 6)),
    "channels halved": (lambda graph, share: _channels(graph, share, 0.5), (0.05, 0.2, 0.5)),
    "channels dead": (lambda graph, share: _channels(graph, share, 0.0), (0.02, 0.1, 0.3)),
    "red and blue mixed": (_colours, (0.05, 0.2, 1)),
    "wrong contrast": (_contrast, (0.02, 0.1, 0.5)),
}
"""Kinds that change weights, each with strengths from hardly visible to gross."""

QUANTISED: Mapping[str, tuple[GraphDamage, tuple[float, ...]]] = {"stale calibration": (_stale, (0.05, 0.2, 0.5, 1))}
"""Kinds that change the calibration of an INT8 graph."""

RESIZES: Mapping[str, Resize] = {
    "resized by another filter": _other_filter,
    "resized without antialiasing": _sampled(Image.Resampling.BILINEAR),
    "resized to the nearest pixel": _sampled(Image.Resampling.NEAREST),
}
"""Kinds that change what the network sees."""

LOGITS: Mapping[str, tuple[LogitsDamage, tuple[float, ...]]] = {
    "classes exchanged, pairs": (_exchanged, (1, 10, 100, 300)),
    "classes moved on, share": (_moved, (0.02, 0.1, 1)),
    "classes dead": (_dead, (1, 10, 100)),
    "one class biased": (_biased, (0.2, 1, 3, 6)),
    "one class NaN, share of images": (_broken, (0.01, 1)),
    "places of a batch": (_place, (1, 4)),
    "neighbours in a batch": (_neighbours, (0.01, 0.05, 0.2)),
}
"""Kinds that change logits."""
