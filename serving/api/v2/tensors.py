"""Convert the tensors of a request, in JSON or binary, to pixels or image files; sizes are checked first."""

from __future__ import annotations

import base64
import binascii
import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import chain
from typing import Any

import numpy as np

from export.runtime import Pixels
from serving.http.errors import RequestError, bad_parameter

_LENGTH = 4
"""Bytes of the length before each element of a binary BYTES tensor (little-endian, unsigned)."""


@dataclass(frozen=True, slots=True)
class Tensor:
    """An input as the client sent it."""

    name: str
    """Name of the tensor."""

    datatype: str
    """Type of the elements in the protocol's terms, such as UINT8."""

    shape: tuple[int, ...]
    """Dimensions of the tensor, each 0 or more."""

    data: list[Any] | memoryview
    """A JSON array, flat or nested, or a part of the body."""


def pixels(tensor: Tensor, shape: Sequence[int], most: int) -> Pixels:
    """Return the pixels of images that the client has decoded and resized.

    Args:
        tensor: the input `pixels`.
        shape: (S, S, 3), the shape that the model expects for each image.
        most: largest number of images.

    Returns:
        uint8 RGB of shape (N, S, S, 3) with N >= 1.

    Raises:
        RequestError: 422 for another type or shape, or data that does not fill the shape.
    """
    _check_type(tensor, "UINT8")
    if len(tensor.shape) != 4 or tensor.shape[1:] != tuple(shape):
        raise bad_parameter(
            f"the input {tensor.name} must have shape [N, {', '.join(map(str, shape))}], not {_shown(tensor.shape)}"
        )
    _check_count(tensor.shape[0], most)
    size = math.prod(tensor.shape)
    if isinstance(tensor.data, list):
        data: bytes | memoryview = _as_bytes(_flattened(tensor.data, tensor.shape))
    else:
        data = tensor.data
    if len(data) != size:
        raise bad_parameter(f"the shape {_shown(tensor.shape)} of {tensor.name} needs {size} values, not {len(data)}")
    return np.frombuffer(data, np.uint8).reshape(tensor.shape)


def images(tensor: Tensor, most: int) -> list[bytes]:
    """Return the image files in a tensor of shape [N] or [N, 1].

    Args:
        tensor: the input `image`; its JSON elements are base64 text, because JSON can't hold bytes.
        most: largest number of images.

    Raises:
        RequestError: 422 for another type or shape, or data that does not fill the shape.
    """
    _check_type(tensor, "BYTES")
    if len(tensor.shape) not in (1, 2) or tensor.shape[1:] not in ((), (1,)):
        raise bad_parameter(f"the input {tensor.name} must have shape [N] or [N, 1], not {_shown(tensor.shape)}")
    count = tensor.shape[0]
    _check_count(count, most)
    if isinstance(tensor.data, list):
        texts = _flattened(tensor.data, tensor.shape)
        if len(texts) != count:
            raise bad_parameter(f"the shape {_shown(tensor.shape)} of {tensor.name} does not fit {len(texts)} elements")
        return [_from_base64(text, tensor.name) for text in texts]
    return elements(tensor.data, count)


def elements(data: memoryview, count: int) -> list[bytes]:
    """Split a binary BYTES tensor: before each element is its length in 4 bytes, little-endian.

    Args:
        data: all bytes of the tensor.
        count: number of elements.

    Raises:
        RequestError: 422 if the lengths do not add up to the data.
    """
    parts: list[bytes] = []
    position = 0
    for index in range(count):
        start = position + _LENGTH
        position = start + int.from_bytes(data[position:start], "little")
        if start > len(data) or position > len(data):
            raise bad_parameter(f"element {index} of {count} of the BYTES tensor ends after its {len(data)} bytes")
        parts.append(bytes(data[start:position]))
    if position != len(data):
        raise bad_parameter(f"{len(data) - position} bytes follow the last of {count} elements of the BYTES tensor")
    return parts


def _check_type(tensor: Tensor, datatype: str) -> None:
    if tensor.datatype != datatype:
        raise bad_parameter(f"the input {tensor.name} must be {datatype}, not {tensor.datatype[:20]!r}")


def _check_count(count: int, most: int) -> None:
    if not 1 <= count <= most:
        raise bad_parameter(f"send 1 to {most} pictures in a request, not {count}")


def _flattened(data: list[Any], shape: Sequence[int]) -> list[Any]:
    """Return the elements in row-major order of nested lists of this shape; return a flat list as it is."""
    if not data or not isinstance(data[0], list):
        return data
    level: list[Any] = [data]
    for length in shape:
        if not all(isinstance(each, list) and len(each) == length for each in level):
            raise bad_parameter(f"the nested data does not have its shape {_shown(shape)}")
        level = list(chain.from_iterable(level))
    return level


def _as_bytes(values: list[Any]) -> bytes:
    try:
        return bytes(values)
    except (TypeError, ValueError):
        raise bad_parameter("UINT8 data must be whole numbers from 0 to 255") from None


def _from_base64(text: Any, name: str) -> bytes:
    if isinstance(text, str):
        try:
            return base64.b64decode(text, validate=True)
        except (binascii.Error, ValueError):
            pass
    raise RequestError(
        422,
        "bad_parameter",
        f"in JSON, every element of {name} must be a picture file as base64 text; or send it binary",
    )


def _shown(shape: Sequence[int]) -> str:
    return str(list(shape[:8]))[:100]
