"""Running a graph that is not in the bundle yet, to look at it while it is being made."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
import onnxruntime

from models.host import cores

BATCH = 8


def infer(
    model: onnx.ModelProto,
    pixels: npt.NDArray[np.uint8],
    outputs: Sequence[str],
    *,
    combine: Callable[..., npt.NDArray[Any]] = np.concatenate,
) -> list[npt.NDArray[Any]]:
    """Run the graph in ONNX Runtime on the CPU, a few pictures at a time.

    Args:
        model: graph of the contract.
        pixels: uint8 (N, S, S, 3).
        outputs: names of the graph's outputs.
        combine: makes one array of a list with one array a batch, along `axis=0`.

    Returns:
        One array for each of `outputs`.
    """
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = cores()
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    batches = (pixels[start : start + BATCH] for start in range(0, len(pixels), BATCH))
    results = [session.run(list(outputs), {"pixels": batch}) for batch in batches]
    return [combine(column, axis=0) for column in zip(*results, strict=True)]
