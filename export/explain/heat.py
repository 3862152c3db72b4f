"""Heat maps without torch: from the graph `explain.onnx`, else by occlusion with the FP32 graph alone.

Both compute in the calling thread only. A map takes about as long as an image of `onnxruntime-fp32` on one core;
occlusion takes `CELLS` squared plus one of them.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from export.parity.record import check_runtime, proof
from export.runtime import Logits, Pixels
from export.runtimes.onnxruntime import OnnxRuntime
from export.variants import load
from models.bundle.bundle import EXPLAIN, Bundle
from models.common.errors import HalftoneError
from models.common.statistics import softmax

Method = Literal["class activation map", "attention rollout", "occlusion"]
CAM: Method = "class activation map"
ATTENTION: Method = "attention rollout"
OCCLUSION: Method = "occlusion"

VARIANT = "onnxruntime-fp32"
"""Variant that explains; its proof is needed, as for serving."""

MAPS, METHOD = "maps", "halftone.explains"
"""Output of `explain.onnx`, and the entry of its metadata that names the method."""

CELLS = 7
"""Rows and columns of the grid of an occlusion."""

EVEN = 1e-4
"""Share of the highest attention below which differences are rounding."""

Map = npt.NDArray[np.float32]


@dataclass(frozen=True, kw_only=True)
class Heat:
    """Explanation of one image."""

    map: Map
    """float32 (H, W) in 0..1 on the network's own grid: the hottest place is 1; all are 0 if nothing speaks for the
    class."""

    index: int
    """The class; attention rollout gives the same map for every class."""

    probability: float
    """Calibrated probability of this class, 0..1."""


class HeatMaps:
    """A bundle's explanations; one call at a time.

    Args:
        bundle: the opened bundle.

    Raises:
        HalftoneError: the FP32 graph is missing, damaged or not proven on this machine's library.
    """

    def __init__(self, bundle: Bundle) -> None:
        self._temperature = bundle.manifest.temperature
        record = proof(bundle, VARIANT)
        self._runtime: OnnxRuntime | None = None
        if bundle.has(EXPLAIN):
            check_runtime(record, OnnxRuntime.version(), "fp32 on CPU", bundle.name)
            self._session = _session(bundle)
            self.method: Method = self._session.get_modelmeta().custom_metadata_map[METHOD]
        else:
            runtime = load(bundle, VARIANT, threads=1)
            check_runtime(record, runtime.version(), runtime.executed_as, bundle.name)
            self._runtime, self.method = runtime, OCCLUSION  # type: ignore[assignment]

    def explain(self, pixels: Pixels, class_index: int | None = None) -> Heat:
        """Compute the heat map of an image.

        Args:
            pixels: uint8 RGB (S, S, 3).
            class_index: output to explain; None for the best class.
        """
        if self._runtime is not None:
            return occlusion(self._runtime.run, pixels, class_index, self._temperature)
        logits, maps = self._session.run(["logits", MAPS], {"pixels": pixels[np.newaxis]})
        probabilities = softmax(logits, self._temperature)[0]
        index = int(logits[0].argmax()) if class_index is None else class_index
        heat = _stretched(maps[0]) if self.method == ATTENTION else maps[0, index]
        return Heat(map=_scaled(heat), index=index, probability=float(probabilities[index]))


def occlusion(network: Callable[[Pixels], Logits], pixels: Pixels, class_index: int | None, temperature: float) -> Heat:
    """Measure how much of the class's probability each place takes away when it is painted in the mean colour.

    Zeiler and Fergus, "Visualizing and Understanding Convolutional Networks" (arXiv:1311.2901), section 4.2.

    Args:
        network: returns logits float32 (N, classes) for uint8 RGB (N, S, S, 3).
        pixels: uint8 RGB (S, S, 3).
        class_index: output to explain; None for the best class.
        temperature: divisor of the logits.
    """
    probabilities = softmax(network(np.concatenate([pixels[np.newaxis], occluded(pixels)])), temperature)
    whole = probabilities[0]
    index = int(whole.argmax()) if class_index is None else class_index
    lost = (whole[index] - probabilities[1:, index]).reshape(CELLS, CELLS)
    return Heat(map=_scaled(lost), index=index, probability=float(whole[index]))


def occluded(pixels: Pixels) -> Pixels:
    """Return uint8 (CELLS squared, S, S, 3): the image with one place in its mean colour, row by row.

    A place is twice as wide as a cell and centred on it, so that what lies on the border of two cells is covered.
    """
    size = len(pixels)
    copies = np.repeat(pixels[np.newaxis], CELLS * CELLS, axis=0)
    colour = pixels.mean(axis=(0, 1)).round().astype(np.uint8)
    edges = [(max(0, round((cell - 0.5) * size / CELLS)), round((cell + 1.5) * size / CELLS)) for cell in range(CELLS)]
    for number, copy in enumerate(copies):
        (top, bottom), (left, right) = edges[number // CELLS], edges[number % CELLS]
        copy[top:bottom, left:right] = colour
    return copies


def enlarged(heat: Map, size: int) -> Map:
    """Return a map (H, W) as float32 (size, size) in 0..1: bilinear, as torch's `interpolate` without corners."""
    rows, columns = heat.shape
    return _scaled(_weights(size, rows) @ heat @ _weights(size, columns).T)


def _weights(size: int, cells: int) -> Map:
    """Return the share float32 (size, cells) of each cell in each pixel."""
    at = np.clip((np.arange(size) + 0.5) * cells / size - 0.5, 0, cells - 1)
    return np.asarray(np.maximum(0, 1 - np.abs(at[:, np.newaxis] - np.arange(cells))), dtype=np.float32)


def _stretched(heat: Map) -> Map:
    """Return attention with its least value at 0, as every patch has a share; an even map is 0 everywhere."""
    above = heat - heat.min()
    return above if above.max() > EVEN * heat.max() else np.zeros_like(heat)


def _scaled(heat: npt.NDArray[np.floating]) -> Map:
    """Return what speaks for the class, with 1 for the highest; a map without any stays zero."""
    positive = np.maximum(heat, 0)
    return np.asarray(positive / max(float(positive.max()), float(np.finfo(np.float32).tiny)), dtype=np.float32)


def _session(bundle: Bundle) -> Any:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    options.log_severity_level = 3
    try:
        return onnxruntime.InferenceSession(bundle.read(EXPLAIN), options, providers=["CPUExecutionProvider"])
    # ONNX Runtime's own exception types derive from Exception alone.
    except Exception as error:
        if isinstance(error, HalftoneError):
            raise
        reason = " ".join(str(error).split())
        raise HalftoneError(f"ONNX Runtime can't load {EXPLAIN} of {bundle.folder}: {reason}") from None
