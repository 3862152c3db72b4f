"""The answer to an inference request: tensors as JSON, or as bytes after it."""

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
    """One tensor of an answer."""

    name: str
    """Its name."""

    values: Logits | list[bytes]
    """Numbers (FP32), or texts (BYTES) in row-major order."""

    shape: tuple[int, ...]
    """Its dimensions."""

    binary: bool
    """Whether it follows the JSON as bytes."""


def best_classes(
    values: Logits, order: npt.NDArray[np.intp], labels: Sequence[str], count: int
) -> tuple[list[bytes], tuple[int, int]]:
    """The best classes of each picture as the classification extension writes them, and the shape [N, count].

    Args:
        values: float32 (N, classes), to be shown.
        order: (N, classes), best first.
        labels: by class.
        count: how many to name.

    Returns:
        `value:index:label` for each of N x count, with six decimals as Triton does.
    """
    texts = [
        f"{row[index]:f}:{index}:{labels[index]}".encode()
        for row, indices in zip(values, order[:, :count].tolist(), strict=True)
        for index in indices
    ]
    return texts, (len(values), count)


def failure(error: RequestError) -> Answer:
    """The answer to a request that can't be served, as the protocol wants it: `{"error": "message"}`."""
    return as_json({"error": error.message}, error.status, error.headers, error=error.code)


def encode(head: dict[str, Any], outputs: Sequence[Output]) -> Answer:
    """The HTTP answer.

    Args:
        head: the members of the JSON object besides its outputs.
        outputs: the tensors, in order.
    """
    tails = [_binary(output) if output.binary else b"" for output in outputs]
    described = [_described(output, len(tail)) for output, tail in zip(outputs, tails, strict=True)]
    answer = as_json(head | {"outputs": described})
    if not any(output.binary for output in outputs):
        return answer
    length = {HEADER_LENGTH: str(len(answer.content))}
    return Answer(b"".join([answer.content, *tails]), media_type=b"application/octet-stream", headers=length)


def _described(output: Output, size: int) -> dict[str, Any]:
    texts = isinstance(output.values, list)
    described = {"name": output.name, "datatype": "BYTES" if texts else "FP32", "shape": list(output.shape)}
    if output.binary:
        return described | {"parameters": {"binary_data_size": size}}
    if isinstance(output.values, list):
        return described | {"data": [text.decode() for text in output.values]}
    return described | {"data": output.values.ravel().tolist()}


def _binary(output: Output) -> bytes:
    if isinstance(output.values, list):
        return b"".join(len(text).to_bytes(4, "little") + text for text in output.values)
    return output.values.astype("<f4").tobytes()
