"""The sample photographs that ship with the package, for the page: as they are, small, and who made them."""

from __future__ import annotations

import functools
import io
import re
from importlib.resources import files

from PIL import Image

from models.preprocess import transform
from models.spec import InputSpec

_FOLDER = files("export") / "photos"
_SMALL = InputSpec(size=176, crop_fraction=1)
_ROW = re.compile(r"^\| ([a-z]+)\.jpg \| (.+?) \| (.+?) \| (.+?) \|$", re.MULTILINE)
"""A row of the table of LICENSES.md, without its marks: file, what it shows, origin, licence."""

# Read once, as are Pillow's encoders: a request would find that the process can open no further file.
Image.preinit()
_ROWS = _ROW.findall(re.sub("[`<>]", "", (_FOLDER / "LICENSES.md").read_text("utf-8")))
_PHOTOGRAPHS = {name: (_FOLDER / f"{name}.jpg").read_bytes() for name, *_ in _ROWS}

CREDITS = [dict(zip(("name", "shows", "origin", "license"), row, strict=True)) for row in _ROWS]
"""Name, content, origin and licence of each photograph, in the order of LICENSES.md."""


def photograph(name: str) -> bytes | None:
    """Return the JPEG file of a photograph; None if there is none of this name."""
    return _PHOTOGRAPHS.get(name)


def small(name: str) -> bytes | None:
    """Return the centre of a photograph as a JPEG file of some 7 kB; None if there is none of this name."""
    return _small(name) if name in _PHOTOGRAPHS else None


@functools.cache
def _small(name: str) -> bytes:
    file = io.BytesIO()
    Image.fromarray(transform.load(_PHOTOGRAPHS[name], _SMALL)).save(file, "JPEG", quality=80)
    return file.getvalue()
