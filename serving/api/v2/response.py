"""Encode the response to an inference request: tensors as JSON, or as bytes after it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from export.runtime import Logits
from serving.http.errors import RequestError
from serving.http.response import Answer, as_json

HEADER_LENGTH = "Inference-Header-Content-Length"


@dataclass(frozen=True, slots=True)
class Output:
    """One tensor of a response."""

    name: str
    """Name of the tensor."""

    values: Logits | list[bytes]
    """Numbers (FP32), or texts (BYTES) in row-major order."""

    shape: tuple[int, ...]
    """Dimensions of the tensor."""

    binary: bool
    """Send the values as bytes after the JSON."""


def best_classes(
    values: Logits, order: npt.NDArray[np.intp], labels: Sequence[str], count: int
) -> tuple[list[bytes], tuple[int, int]]:
    """Return the best classes of each image in the format of the classification extension, and the shape [N, count].

    Args:
        values: float32 (N, classes), logits or probabilities to show.
        order: indices of the classes, (N, classes), best first.
        labels: label of each class.
        count: number of classes to name.

    Returns:
        `value:index:label` for each of N x count classes, with six decimals as in Triton.
    """
    texts = [
        f"{row[index]:f}:{index}:{labels[index]}".encode()
        for row, indices in zip(values, order[:, :count].tolist(), strict=True)
        for index in indices
    ]
    return texts, (len(values), count)


def protocol_failure(error: RequestError) -> Answer:
    """Return the response for an error in the protocol's format: `{"error": "message"}`."""
    return as_json({"error": error.message}, error.status, error.headers, error=error.code)


def encode(head: dict[str, Any], outputs: Sequence[Output]) -> Answer:
    """Return the HTTP response.

    Args:
        head: members of the JSON object in addition to its outputs.
        outputs: the tensors, in order.
    """
    tails = [_binary(output) if output.binary else b"" for output in outputs]
    members = [_json_member(output, len(tail)) for output, tail in zip(outputs, tails, strict=True)]
    answer = as_json(head | {"outputs": members})
    if not any(output.binary for output in outputs):
        return answer
    length = {HEADER_LENGTH: str(len(answer.content))}
    return Answer(b"".join([answer.content, *tails]), media_type=b"application/octet-stream", headers=length)


def _json_member(output: Output, size: int) -> dict[str, Any]:
    texts = isinstance(output.values, list)
    member = {"name": output.name, "datatype": "BYTES" if texts else "FP32", "shape": list(output.shape)}
    if output.binary:
        return member | {"parameters": {"binary_data_size": size}}
    if isinstance(output.values, list):
        return member | {"data": [text.decode() for text in output.values]}
    return member | {"data": output.values.ravel().tolist()}


def _binary(output: Output) -> bytes:
    if isinstance(output.values, list):
        return b"".join(len(text).to_bytes(4, "little") + text for text in output.values)
    return output.values.astype("<f4").tobytes()
