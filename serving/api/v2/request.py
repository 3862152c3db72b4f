"""Parse an inference request of the Open Inference Protocol; no number in it is trusted.

https://github.com/kserve/open-inference-protocol/blob/main/specification/protocol/inference_rest.md, with the
extensions for binary data and for classification of
https://github.com/triton-inference-server/server/tree/main/docs/protocol
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from serving.api.v2.tensors import Tensor
from serving.http.errors import RequestError, bad_parameter
from serving.http.json_body import parse_object

_MAX_DIMENSIONS = 8
_MAX_NUMBER = 2**63


@dataclass(frozen=True, slots=True)
class RequestedOutput:
    """An output that the client requests."""

    name: str
    """Name of the tensor."""

    binary: bool
    """Send the output as bytes after the JSON."""

    classes: int | None = None
    """Send this many best classes as text instead of the tensor."""


@dataclass(frozen=True, slots=True)
class InferenceRequest:
    """A parsed request; names, types and shapes are not yet compared with the model's."""

    id: str | None
    """The client's name for the request, to be repeated in the response."""

    inputs: list[Tensor]
    """The tensors that the client sent."""

    outputs: list[RequestedOutput]
    """The requested outputs; empty: all outputs of the model."""

    binary: bool
    """Send outputs as bytes, unless the client says otherwise for an output."""

    seconds: float | None
    """Time that the client allows, if it says so."""


def parse(body: bytes, header_length: str | None) -> InferenceRequest:
    """Parse the body of an inference request.

    Args:
        body: a JSON object, then the data of its binary inputs in their order.
        header_length: the header Inference-Header-Content-Length, the length of the JSON; None: all of the body.

    Raises:
        RequestError: 400 if the body can't be parsed, 413 for too many values in JSON, 422 for a value that is not
            allowed.
    """
    length = _length(header_length, len(body))
    values = _json(body[:length] if length < len(body) else body)
    parameters = _parameters(values, "the request")
    binary = _get(parameters, "binary_data_output", bool, "the request's parameters", False)
    timeout = _get(parameters, "timeout", int, "the request's parameters", 0)
    binary_data = _BinaryData(memoryview(body)[length:])
    inputs = [_input(each, binary_data) for each in _objects(values, "inputs")]
    binary_data.check_used_up()
    return InferenceRequest(
        id=_get(values, "id", str, "the request", None),
        inputs=inputs,
        outputs=[_output(each, binary) for each in _objects(values, "outputs", required=False)],
        binary=binary,
        seconds=timeout / 1e6 if timeout > 0 else None,
    )


class _BinaryData:
    """The part of the body after the JSON, consumed from its start."""

    def __init__(self, data: memoryview) -> None:
        self._data = data
        self._position = 0

    def take(self, size: int, name: str) -> memoryview:
        left = len(self._data) - self._position
        if not 0 <= size <= left:
            raise malformed(f"binary_data_size of {name} is {size}, and {left} bytes of the body are left")
        self._position += size
        return self._data[self._position - size : self._position]

    def check_used_up(self) -> None:
        left = len(self._data) - self._position
        if left:
            raise malformed(
                f"{left} bytes of the body belong to no input: Inference-Header-Content-Length must be the length of "
                "the JSON, and every binary input must say its binary_data_size"
            )


def malformed(reason: str) -> RequestError:
    """Return the error for a request that can't be parsed."""
    return RequestError(400, "bad_request", f"this is no inference request: {reason}")


def _length(text: str | None, size: int) -> int:
    if text is None:
        return size
    text = text.strip()
    if not (text.isascii() and text.isdigit() and len(text) <= 18 and int(text) <= size):
        raise malformed(f"Inference-Header-Content-Length is {text[:30]!r}, and the body has {size} bytes")
    return int(text)


def _json(data: bytes) -> Mapping[str, Any]:
    try:
        return parse_object(data)
    except ValueError as error:
        raise malformed(f"its JSON can't be read ({str(error)[:100]})") from None


def _get(values: Mapping[str, Any], name: str, kind: type[Any], owner: str, default: Any) -> Any:
    """Return a member of a JSON object after a check of its type; the default if it is missing or null."""
    value = values.get(name)
    if value is None:
        return default
    if not isinstance(value, kind) or (kind is int and isinstance(value, bool)):
        raise malformed(f"{name} of {owner} is not of type {kind.__name__}")
    if isinstance(value, str) and not _is_unicode(value):
        raise malformed(f"{name} of {owner} holds half of a surrogate pair")
    if kind is int and not -_MAX_NUMBER <= value < _MAX_NUMBER:
        raise malformed(f"{name} of {owner} is no 64-bit number")
    return value


def _is_unicode(text: str) -> bool:
    """Return True if the text can be encoded as UTF-8: JSON's escapes can spell text that can't."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def _objects(values: Mapping[str, Any], name: str, *, required: bool = True) -> list[dict[str, Any]]:
    objects = _get(values, name, list, "the request", None)
    if objects is None and required:
        raise malformed(f"it has no {name}")
    if not all(isinstance(each, dict) for each in objects or []):
        raise malformed(f"its {name} are not objects")
    return objects or []


def _parameters(values: Mapping[str, Any], owner: str) -> Mapping[str, Any]:
    parameters: Mapping[str, Any] = _get(values, "parameters", dict, owner, {})
    if any(name.startswith("shared_memory") for name in parameters):
        raise bad_parameter(f"{owner} is in shared memory, which this service does not read: send the data itself")
    return parameters


def _name(values: Mapping[str, Any], what: str) -> str:
    name: str | None = _get(values, "name", str, what, None)
    if not name:
        raise malformed(f"{what} has no name")
    return name[:100]


def _input(values: Mapping[str, Any], binary_data: _BinaryData) -> Tensor:
    name = _name(values, "an input")
    owner = f"the input {name}"
    size = _get(_parameters(values, owner), "binary_data_size", int, owner, None)
    data = _get(values, "data", list, owner, None)
    if (size is None) == (data is None):
        raise malformed(f"{owner} must have data or a binary_data_size, one of the two")
    datatype = _get(values, "datatype", str, owner, "")
    return Tensor(name, datatype, _shape(values, owner), data if size is None else binary_data.take(size, name))


def _shape(values: Mapping[str, Any], owner: str) -> tuple[int, ...]:
    shape = _get(values, "shape", list, owner, None)
    if shape is None or len(shape) > _MAX_DIMENSIONS:
        raise malformed(f"{owner} must have a shape of at most {_MAX_DIMENSIONS} dimensions")
    if not all(type(each) is int and 0 <= each < _MAX_NUMBER for each in shape):
        raise malformed(f"the shape of {owner} must be a list of whole numbers from 0 on")
    return tuple(shape)


def _output(values: Mapping[str, Any], binary: bool) -> RequestedOutput:
    name = _name(values, "an output")
    owner = f"the output {name}"
    parameters = _parameters(values, owner)
    return RequestedOutput(
        name,
        binary=_get(parameters, "binary_data", bool, owner, binary),
        classes=_get(parameters, "classification", int, owner, None),
    )
