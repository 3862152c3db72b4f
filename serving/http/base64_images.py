"""Images as base64 text in JSON, as browsers and the SDKs of cloud services send them."""

from __future__ import annotations

import base64
import binascii
import re

from serving.http.errors import RequestError, bad_parameter
from serving.http.json_body import parse_object

_DATA_URL = re.compile(r"data:[^,]{0,200};base64,")
_URL_SAFE = str.maketrans("-_", "+/", " \r\n\t=")


def parse_images(body: bytes, field: str) -> tuple[list[bytes], list[tuple[str, str]]]:
    """Return the images and the other members, as text, of `{"image": "<base64>"}` or `{"images": ["<base64>"]}`.

    Args:
        body: a JSON object in UTF-8.
        field: `image`, which is one text, or `images`, which is a list of them.

    Raises:
        RequestError: 400, 413 or 422, depending on what is wrong with it.
    """
    try:
        values = parse_object(body)
    except ValueError as error:
        raise RequestError(400, "bad_request", f"the JSON can't be read: {str(error)[:100]}") from None
    images = values.pop(field, None)
    wanted = '{"image": "<base64>"}' if field == "image" else '{"images": ["<base64>", …]}'
    if isinstance(images, str) and field == "image":
        images = [images]
    if not isinstance(images, list) or (field == "image" and len(images) != 1):
        raise bad_parameter(f"the JSON must be {wanted}: or send the file itself as the body")
    others = [(name, str(value)) for name, value in values.items()]
    return [_decoded(each, wanted) for each in images], others


def _decoded(text: object, wanted: str) -> bytes:
    if not isinstance(text, str):
        raise bad_parameter(f"a picture in JSON is text in base64: {wanted}")
    start = found.end() if (found := _DATA_URL.match(text)) else 0
    digits = text[start:].translate(_URL_SAFE)
    try:
        return base64.b64decode(digits + "=" * (-len(digits) % 4), validate=True)
    except (binascii.Error, ValueError):
        raise bad_parameter(
            f"{text[:30]!r} is not base64 (URLs are not fetched): send {wanted}, or the file itself as the body"
        ) from None
