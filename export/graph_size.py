"""Whether a graph fits into one ONNX file, known before minutes are spent on tracing it.

An ONNX file is one protobuf message and therefore smaller than 2 GiB (https://protobuf.dev/programming-guides/encoding/,
"Size Limits"). Larger graphs would keep their tensors in files beside them, which the runtimes here refuse.
"""

from __future__ import annotations

from models.bundle import WEIGHTS, Bundle
from models.errors import HalftoneError

PROTOBUF_LIMIT = 2**31 - 1

STRUCTURE = 32 * 2**20
"""Room in bytes for nodes, names, labels, and what tracing folds into constants (masks, position tables)."""

BYTES = {"fp32": 4, "fp16": 2, "int8": 1}


def graph_bytes(bundle: Bundle, precision: str) -> int:
    """How long the ONNX file will be, at most, estimated from the FP32 checkpoint.

    Raises:
        FileMissingError: the bundle has no weights.
    """
    bundle.locate(WEIGHTS)
    return bundle.manifest.files[WEIGHTS].size * BYTES[precision] // BYTES["fp32"] + STRUCTURE


def check_graph_size(bundle: Bundle, precision: str, limit: int = PROTOBUF_LIMIT) -> None:
    """Refuse a precision in which the graph would not fit into one ONNX file.

    Args:
        bundle: the opened bundle.
        precision: `fp32`, `fp16` or `int8`.
        limit: of a file, in bytes.

    Raises:
        HalftoneError: it would not; the message names the precision that does, if there is one.
    """
    size = graph_bytes(bundle, precision)
    if size <= limit:
        return
    model = bundle.manifest.name
    if graph_bytes(bundle, "fp16") <= limit:
        way_out = f"run `python -m export.onnx --model {model} --precision fp16`"
    else:
        way_out = "take a smaller architecture (`python -m models --sort params` lists them)"
    raise HalftoneError(
        f"the {precision.upper()} graph of {model} would hold {size / 1e9:.1f} GB, and an ONNX file holds at most "
        f"{limit / 1e9:.1f} GB: {way_out}"
    )
