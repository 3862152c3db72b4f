"""Parse an upload in two steps: the head of the request, then its body with the images and further parameters.

Between the two steps a request can be refused: reading the body costs most of what a refused request costs.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple
from urllib.parse import parse_qsl

from models.bundle.promises import Promises
from models.common.conformal import highest_coverage, quantile
from models.preprocess.formats import image_format
from serving.http.base64_images import parse_images
from serving.http.deadline import HEADER, allowed_seconds
from serving.http.errors import RequestError, bad_parameter
from serving.http.multipart import Part, parse_form

if TYPE_CHECKING:
    from starlette.types import Scope

PARAMETERS = ("top_k", "model", "coverage")
"""Of a classification."""
EXPLAIN_PARAMETERS = ("class", "model", "format")
FORMATS = ("json", "png")
DEFAULT_TOP_K = 5
_JSON = {"application/json", "application/*"}
_MOST_DIGITS = 400
_NUMBER = re.compile(r"[0-9]*\.?[0-9]*(?<=[0-9.])(?:[eE][+-]?[0-9]{1,4})?")
_MOST_CHARACTERS = 40


class Head(NamedTuple):
    """The head of an upload request, without the checks that need a model."""

    content_type: str
    """The Content-Type header; empty if the request has none."""

    content_length: str | None
    """The Content-Length header, unchecked."""

    content_encoding: str
    """The Content-Encoding header; empty if the request has none."""

    accept: str
    """The Accept header; empty if the request has none."""

    known: tuple[str, ...]
    """Names of the parameters that the request may have."""

    parameters: Mapping[str, str]
    """The parameters of the query by name."""

    seconds: float
    """Time allowed for the response once the body has arrived."""

    @property
    def model(self) -> str | None:
        """Name of the model that the query selects; None if it names none."""
        return _model_name(self.parameters)


@dataclass(frozen=True, slots=True)
class Upload:
    """A complete upload."""

    images: list[bytes]
    """The image files, not decoded."""

    model: str | None
    """Name of the selected model; None for the default one."""

    parameters: Mapping[str, str]
    """The parameters of query and form by name, unchecked."""

    seconds: float
    """Time allowed for the response from now on."""


def parse_head(scope: Scope, max_seconds: float, known: tuple[str, ...] = PARAMETERS) -> Head:
    """Parse the headers and the query.

    Args:
        scope: the request's ASGI scope.
        max_seconds: longest time that the service allows for a response.
        known: names of the parameters that the request may have.

    Raises:
        RequestError: 422 if the time-out or a parameter is wrong.
    """
    content_length = content_type = timeout = None
    content_encoding = accept = ""
    for name, value in scope["headers"]:
        if name == b"content-length":
            content_length = value.decode("latin-1")
        elif name == b"content-type":
            content_type = value.decode("latin-1")
        elif name == b"content-encoding":
            content_encoding = value.decode("latin-1")
        elif name == b"accept":
            accept = value.decode("latin-1")
        elif name == HEADER:
            timeout = value.decode("latin-1")
    seconds = allowed_seconds(timeout, max_seconds)
    query = scope["query_string"]
    parameters = _merged({}, parse_qsl(query.decode("latin-1"), keep_blank_values=True), known) if query else {}
    if parameters:
        _check_numbers(parameters)
    return Head(content_type or "", content_length, content_encoding, accept, known, parameters, seconds)


def _check_numbers(parameters: Mapping[str, str]) -> None:
    """Refuse what no model can take, before there is talk of room in a queue."""
    parse_top_k(parameters.get("top_k"), 1)
    if (coverage := parameters.get("coverage")) is not None:
        _share(coverage.strip())


def parse_upload(head: Head, body: bytes, field: str) -> Upload:
    """Parse the body: a form whose field `field` holds the images, one image as it is, or JSON with base64.

    Raises:
        RequestError: 400, 415 or 422, depending on what is wrong with it.
    """
    images, fields = _images_and_fields(head.content_type, body, field)
    parameters = _merged(head.parameters, fields, head.known) if fields else head.parameters
    return Upload(images, _model_name(parameters), parameters, head.seconds)


def parse_top_k(text: str | None, classes: int) -> int:
    """Return the number of classes to name in the response.

    Args:
        text: the parameter as the client wrote it; None for the default.
        classes: number of classes of the model, which is the most that is returned.

    Raises:
        RequestError: 422 if the text is not a whole number of at least 1.
    """
    if text is None:
        return min(DEFAULT_TOP_K, classes)
    text = text.strip()
    if not (text.isascii() and text.isdigit() and len(text) <= _MOST_DIGITS and int(text) >= 1):
        raise bad_parameter(f"top_k must be a whole number from 1 on, not {text[:50]!r}")
    return min(int(text), classes)


def parse_coverage(text: str | None, promises: Promises | None) -> float | None:
    """Return the coverage of the prediction sets; None for that of the promises.

    Args:
        text: the parameter as the client wrote it; None if it is missing.
        promises: of the model; None if it has none.

    Raises:
        RequestError: 422 if the text is not a decimal number in (0, 1), or if such sets can't be promised.
    """
    if text is None:
        return None
    coverage, values = _share(text.strip()), promises.quantiles if promises else ()
    if quantile(values, coverage) is None:
        most = f"at most {highest_coverage(values):.3f} can be" if values else "no prediction sets are"
        raise bad_parameter(
            f"a coverage of {coverage:g} is not promised by this model: {most}, see `promises` in /models"
        )
    return coverage


def wants_png(text: str | None, accept: str) -> bool:
    """Return True if an explanation is to be a PNG and not JSON.

    Args:
        text: the parameter `format` as the client wrote it; None if it is missing.
        accept: the Accept header, which decides without the parameter. JSON wins if both are acceptable.

    Raises:
        RequestError: 422 if the parameter is another format.
    """
    if text is not None:
        if text not in FORMATS:
            raise bad_parameter(f"format must be {' or '.join(FORMATS)}, not {text[:50]!r}")
        return text == "png"
    kinds = {kind.partition(";")[0].strip().lower() for kind in accept.split(",")}
    return not kinds & _JSON and bool(kinds & {"image/png", "image/*"})


def _share(text: str) -> float:
    try:
        # `float` also takes "nan", digits of other scripts and underscores.
        value = float(text) if _NUMBER.fullmatch(text[:_MOST_CHARACTERS]) and len(text) <= _MOST_CHARACTERS else 0.0
    except ValueError:
        value = 0.0
    if not 0 < value < 1:
        raise bad_parameter(f"coverage must be a number between 0 and 1, such as 0.95, not {text[:50]!r}")
    return value


def _model_name(parameters: Mapping[str, str]) -> str | None:
    # BentoML's client writes a text field as JSON; the name of a model has no quotes.
    model = parameters.get("model")
    return model and model.strip('"')


def _merged(values: Mapping[str, str], further: Iterable[tuple[str, str]], known: tuple[str, ...]) -> dict[str, str]:
    """Add parameters to others; raise 422 for an unknown or repeated one, which would be ignored silently."""
    values = dict(values)
    for name, value in further:
        if name not in known:
            raise bad_parameter(f"unknown parameter {name[:50]!r}: there are {', '.join(known)}")
        if name in values:
            raise bad_parameter(f"{name} was given more than once")
        values[name] = value
    return values


def _images_and_fields(content_type: str, body: bytes, field: str) -> tuple[list[bytes], Sequence[tuple[str, str]]]:
    """Return the images and the text fields of a form, or the image that the body is."""
    if content_type.lower().startswith("multipart/"):
        parts = parse_form(content_type, body)
        name = _image_field(parts, field)
        images = [_image(part) for part in parts if part.name == name]
        return images, [(part.name, _text(part)) for part in parts if part.name != name]
    # curl labels any body as a web form: the bytes decide, not the label.
    declared = content_type.partition(";")[0].strip().lower()
    if not body:
        raise RequestError(
            400, "not_an_image", "the body is empty (0 bytes): send a JPEG, PNG or WebP file as the body or in a form"
        )
    if image_format(body) or not declared or declared == "application/octet-stream" or declared.startswith("image/"):
        return [body], []
    if declared == "application/json" or declared.endswith("+json"):
        return parse_images(body, field)
    raise RequestError(
        415,
        "unsupported_media_type",
        f"the body is {declared}, not a picture: send a JPEG, PNG or WebP file as the body, or as the multipart field "
        f"`{field}` (curl -F {field}=@photo.jpg)",
    )


def _image_field(parts: Sequence[Part], field: str) -> str:
    """Return the name of the field with the images: `field`, or the only one that has files."""
    files = {part.name for part in parts if part.is_file}
    if any(part.name == field for part in parts):
        return field
    if len(files) == 1:
        return files.pop()
    raise bad_parameter(f"the form has no field `{field}`: send the picture there (curl -F {field}=@photo.jpg)")


def _image(part: Part) -> bytes:
    # Some clients send files without a name: only a nameless part that is no image either was meant as text.
    if not part.is_file and image_format(part.data) is None:
        raise bad_parameter(
            f"the field `{part.name}` is text and not a file; URLs are not fetched: send the picture itself "
            f"(curl -F {part.name}=@photo.jpg)"
        )
    return part.data


def _text(part: Part) -> str:
    if part.is_file:
        raise bad_parameter(f"a file was sent in the unknown field {part.name[:50]!r}")
    return part.data.decode("utf-8", "replace")
