"""List the external data files of an ONNX graph without the `onnx` package.

Serving does not install `onnx`, yet a runtime must not receive a graph before its external data is known to lie
inside the bundle. This module walks the protobuf wire format (https://protobuf.dev/programming-guides/encoding/) along
the few fields of onnx.proto that can contain a tensor, and skips everything else.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from models.common.errors import HalftoneError

# message -> field number -> message, for every path from ModelProto to TensorProto (onnx/onnx.proto, IR version 13).
_FIELDS: Final[dict[str, dict[int, str]]] = {
    "Model": {7: "Graph", 20: "TrainingInfo", 25: "Function"},
    "TrainingInfo": {1: "Graph", 2: "Graph"},
    "Function": {7: "Node", 11: "Attribute"},
    "Graph": {1: "Node", 5: "Tensor", 15: "SparseTensor"},
    "Node": {5: "Attribute"},
    "Attribute": {5: "Tensor", 6: "Graph", 10: "Tensor", 11: "Graph", 22: "SparseTensor", 23: "SparseTensor"},
    "SparseTensor": {1: "Tensor", 2: "Tensor"},
    "Tensor": {13: "ExternalData"},
}
_VARINT, _FIXED64, _LENGTH, _FIXED32 = 0, 1, 2, 5


def external_locations(graph: bytes) -> list[str]:
    """Return the distinct `location` values of the graph's external tensors, relative to its folder, in order.

    Raises:
        HalftoneError: the bytes are not an ONNX model.
    """
    try:
        return list(dict.fromkeys(_locations(memoryview(graph), "Model")))
    except (IndexError, ValueError, RecursionError) as error:
        raise HalftoneError(f"not an ONNX model: {error}; export it again with `python -m export.onnx`") from None


def _locations(message: memoryview, kind: str) -> Iterator[str]:
    inner = _FIELDS[kind]
    for number, value in _submessages(message):
        child = inner.get(number)
        if child == "ExternalData":
            entry = {key: bytes(text).decode() for key, text in _submessages(value)}
            if entry.get(1) == "location":
                yield entry.get(2, "")
        elif child is not None:
            yield from _locations(value, child)


def _submessages(message: memoryview) -> Iterator[tuple[int, memoryview]]:
    """Yield (field number, content) of every length-delimited field."""
    position = 0
    while position < len(message):
        tag, position = _varint(message, position)
        if not 8 <= tag < 2**32:
            # Other parsers drop the bits above the 32nd and would find a tensor that this parser misses.
            raise ValueError("a field has no valid number")
        wire = tag & 7
        if wire == _VARINT:
            _, position = _varint(message, position)
        elif wire in (_FIXED64, _FIXED32):
            position += 8 if wire == _FIXED64 else 4
        elif wire == _LENGTH:
            length, position = _varint(message, position)
            if position + length > len(message):
                raise ValueError("it is cut short")
            yield tag >> 3, message[position : position + length]
            position += length
        else:
            raise ValueError(f"unknown wire type {wire}")


def _varint(message: memoryview, position: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        byte = message[position]
        position += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, position
        shift += 7
        if shift > 63:
            raise ValueError("a number is too long")
