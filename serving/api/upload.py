"""A request for a classification, taken apart: its pictures and its parameters."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from urllib.parse import parse_qsl

from models.preprocess.formats import image_format
from serving.http.body import RequestBody, read_body, refusable
from serving.http.deadline import HEADER, allowed_seconds
from serving.http.errors import RequestError, bad_parameter
from serving.http.multipart import Part, parse_form
from serving.http.response import Scope
from serving.settings import Settings

PARAMETERS = ("top_k", "model")
DEFAULT_TOP_K = 5


@dataclass(frozen=True, slots=True)
class Upload:
    """What a client sent."""

    images: list[bytes]
    """The pictures, unread."""

    model: str | None
    """The name of the model that it asks for, if any."""

    top_k: str | None
    """How many classes it asks for, unchecked, if it says."""

    seconds: float
    """Time that it may take from now on."""


CheckRoom = Callable[[str | None, float], None]
"""Raises RequestError where a model would refuse a request now; takes its name, None for the first, and the seconds."""


async def read_upload(
    scope: Scope, receive: RequestBody, field: str, settings: Settings, check_room: CheckRoom
) -> Upload:
    """Read a request whose pictures are the form field `field`, or the body itself.

    Args:
        scope: of the request.
        receive: its channel.
        field: the form's field of the pictures.
        settings: limits and time-outs.
        check_room: is asked before the body is read, which costs most of what a refused request costs.

    Raises:
        RequestError: 400, 408, 413, 415, 422 or 429, whatever is wrong with it.
        ClientGoneError: the client left.
    """
    length = content_type = timeout = None
    for name, value in scope["headers"]:
        if name == b"content-length":
            length = value.decode("latin-1")
        elif name == b"content-type":
            content_type = value.decode("latin-1")
        elif name == HEADER:
            timeout = value.decode("latin-1")
    seconds = allowed_seconds(timeout, settings.deadline)
    query = parse_qsl(scope["query_string"].decode("latin-1"), keep_blank_values=True) if scope["query_string"] else []
    named = _once(query)
    if refusable(scope, settings.max_body):
        check_room(_named(named.get("model")), seconds)
    body = await read_body(receive, length, limit=settings.max_body, seconds=settings.body_timeout)
    images, parameters = _parts(content_type or "", body, field)
    parameters = [*query, *parameters]
    if not parameters:
        return Upload(images, None, None, seconds)
    values = _once(parameters)
    return Upload(images, _named(values.get("model")), values.get("top_k"), seconds)


def _named(model: str | None) -> str | None:
    """The model's name as it was meant: BentoML's client writes a text field as JSON, and no name has quotes."""
    return model and model.strip('"')


def checked_top_k(text: str | None, classes: int) -> int:
    """How many classes to answer, of as many as the model has.

    Raises:
        RequestError: 422 where it is not a number from 1 to `classes`.
    """
    if text is None:
        return min(DEFAULT_TOP_K, classes)
    text = text.strip()
    if not (text.isascii() and text.isdigit() and len(text) <= 9 and 1 <= int(text) <= classes):
        raise bad_parameter(f"top_k must be a whole number from 1 to {classes}, not {text[:50]!r}")
    return int(text)


def _once(parameters: Iterable[tuple[str, str]]) -> dict[str, str]:
    """The parameters by name; an unknown or repeated one would else be ignored in silence."""
    values: dict[str, str] = {}
    for name, value in parameters:
        if name not in PARAMETERS:
            raise bad_parameter(f"unknown parameter {name[:50]!r}: there are {' and '.join(PARAMETERS)}")
        if name in values:
            raise bad_parameter(f"{name} was given more than once")
        values[name] = value
    return values


def _parts(content_type: str, body: bytes, field: str) -> tuple[list[bytes], Sequence[tuple[str, str]]]:
    """The pictures and the text parameters of a form, or the picture that is the body itself."""
    if content_type.lower().startswith("multipart/"):
        parts = parse_form(content_type, body)
        images = [_picture(part) for part in parts if part.name == field]
        if not images:
            raise bad_parameter(f"the form has no field `{field}`: send the picture there (curl -F {field}=@photo.jpg)")
        return images, [(part.name, _text(part)) for part in parts if part.name != field]
    # curl labels any body as a web form: what counts is what the bytes are.
    declared = content_type.partition(";")[0].strip().lower()
    if not body:
        raise RequestError(
            400, "not_an_image", "the body is empty (0 bytes): send a JPEG, PNG or WebP file as the body or in a form"
        )
    if image_format(body) or not declared or declared == "application/octet-stream" or declared.startswith("image/"):
        return [body], []
    raise RequestError(
        415,
        "unsupported_media_type",
        f"the body is {declared}, not a picture: send a JPEG, PNG or WebP file as the body, or as the multipart field "
        f"`{field}` (curl -F {field}=@photo.jpg)",
    )


def _picture(part: Part) -> bytes:
    # Some clients give files no name; what is neither named nor a picture was written by somebody who meant it as text.
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
