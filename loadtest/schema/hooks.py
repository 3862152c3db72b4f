"""Hooks of schemathesis for `loadtest.schema`: real images for every field of format "binary", or "byte" (base64)."""

from __future__ import annotations

import base64
import io

import schemathesis
from hypothesis import strategies as st
from PIL import Image

KINDS = ("JPEG", "PNG", "WebP")
MEDIA_TYPES = ("image/jpeg", "image/png", "image/webp", "application/octet-stream")


def _picture(kind: str) -> bytes:
    file = io.BytesIO()
    Image.radial_gradient("L").resize((64, 48)).convert("RGB").save(file, kind)
    return file.getvalue()


pictures = st.sampled_from([_picture(kind) for kind in KINDS])
schemathesis.openapi.format("binary", pictures)
schemathesis.openapi.format("byte", pictures.map(lambda picture: base64.b64encode(picture).decode()))
for media_type in MEDIA_TYPES:
    schemathesis.openapi.media_type(media_type, pictures)
