"""Encode a picture as an HTTP request, in the form that each server takes."""

from __future__ import annotations

import base64
import io
import json
from enum import StrEnum

from PIL import Image

from loadtest.client.http1 import encode_request

PIXELS_SIZE = 224
_SHORT_SIDE = 256
_BOUNDARY = b"----compare-8f14e45fceea167a"


class Wire(StrEnum):
    """Form of a request."""

    RAW = "raw"
    """The body is the file."""

    IMAGE_FIELD = "image"
    """A multipart form with the file in the field `image`."""

    IMAGES_FIELD = "images"
    """The same, with the field `images`."""

    REQUEST_FIELD = "request"
    """The same, with the field `request`."""

    V2_BASE64 = "v2-base64"
    """Open Inference Protocol: a BYTES tensor `image` of shape (1, 1) as base64 text in JSON."""

    V2_BINARY = "v2-binary"
    """Open Inference Protocol: the same tensor as bytes behind the JSON."""

    V2_PIXELS = "v2-pixels"
    """Open Inference Protocol: a UINT8 tensor `pixels` of shape (1, 224, 224, 3) as bytes behind the JSON, so that the
    client decodes and the server doesn't; the response is the best class. For models with an input of that size."""


def request(wire: Wire, path: str, picture: bytes, port: int) -> bytes:
    """Return the whole request for a JPEG file."""
    headers, body = _content(wire, picture)
    return encode_request("POST", path, body, host=f"127.0.0.1:{port}", headers=headers)


def _content(wire: Wire, picture: bytes) -> tuple[dict[str, str], bytes]:
    if wire is Wire.RAW:
        return {"Content-Type": "image/jpeg"}, picture
    if wire is Wire.V2_BASE64:
        return {"Content-Type": "application/json"}, _v2_base64(picture)
    if wire is Wire.V2_BINARY:
        return _v2_binary(picture)
    if wire is Wire.V2_PIXELS:
        return _v2_pixels(picture)
    return {"Content-Type": f"multipart/form-data; boundary={_BOUNDARY.decode()}"}, _form(wire.value, picture)


def _form(field: str, picture: bytes) -> bytes:
    head = f'Content-Disposition: form-data; name="{field}"; filename="picture.jpg"\r\nContent-Type: image/jpeg'
    return b"--%s\r\n%s\r\n\r\n%s\r\n--%s--\r\n" % (_BOUNDARY, head.encode(), picture, _BOUNDARY)


def _v2_base64(picture: bytes) -> bytes:
    tensor = {
        "name": "image",
        "shape": [1, 1],
        "datatype": "BYTES",
        "parameters": {"content_type": "base64"},
        "data": [base64.b64encode(picture).decode()],
    }
    return json.dumps({"inputs": [tensor]}).encode()


def _v2_binary(picture: bytes) -> tuple[dict[str, str], bytes]:
    element = len(picture).to_bytes(4, "little") + picture
    tensor = {
        "name": "image",
        "shape": [1, 1],
        "datatype": "BYTES",
        "parameters": {"binary_data_size": len(element)},
    }
    return _v2_with_binary({"inputs": [tensor], "outputs": [{"name": "index"}]}, element)


def _v2_with_binary(content: object, data: bytes) -> tuple[dict[str, str], bytes]:
    head = json.dumps(content).encode()
    headers = {"Content-Type": "application/octet-stream", "Inference-Header-Content-Length": str(len(head))}
    return headers, head + data


def _v2_pixels(picture: bytes) -> tuple[dict[str, str], bytes]:
    pixels = _pixels(picture)
    tensor = {
        "name": "pixels",
        "shape": [1, PIXELS_SIZE, PIXELS_SIZE, 3],
        "datatype": "UINT8",
        "parameters": {"binary_data_size": len(pixels)},
    }
    output = {"name": "logits", "parameters": {"classification": 1}}
    return _v2_with_binary({"inputs": [tensor], "outputs": [output]}, pixels)


def _pixels(picture: bytes) -> bytes:
    """Return the center crop of the picture at the size that is usual for ImageNet."""
    with Image.open(io.BytesIO(picture)) as file:
        image = file.convert("RGB")
    scale = _SHORT_SIDE / min(image.size)
    image = image.resize((round(image.width * scale), round(image.height * scale)), Image.Resampling.BICUBIC)
    left, top = (image.width - PIXELS_SIZE) // 2, (image.height - PIXELS_SIZE) // 2
    return image.crop((left, top, left + PIXELS_SIZE, top + PIXELS_SIZE)).tobytes()
