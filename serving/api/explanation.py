"""The response of /explain: a heat map as numbers, or over the image as a PNG."""

from __future__ import annotations

import io
from collections.abc import Sequence
from typing import Any

from PIL import Image

from export.explain.heat import enlarged
from export.explain.overlay import overlay
from serving.lifecycle.explanations import Explained

_DIGITS = 4


def members(explained: Explained, labels: Sequence[str]) -> dict[str, Any]:
    """Return the members of the JSON response beside those of `identity`; `variant` is what explained.

    Args:
        explained: the heat map.
        labels: of the model.
    """
    heat = explained.heat
    return {
        "variant": explained.variant,
        "method": explained.method,
        "label": labels[heat.index],
        "index": heat.index,
        "probability": heat.probability,
        "box": [round(edge, _DIGITS) for edge in explained.box],
        # On the network's own grid: a client enlarges it while drawing.
        "map": [[round(value, _DIGITS) for value in row] for row in heat.map.tolist()],
    }


def as_png(explained: Explained) -> bytes:
    """Return the image as the model sees it, under its heat map, as a PNG file."""
    file = io.BytesIO()
    pixels = explained.pixels
    Image.fromarray(overlay(pixels, enlarged(explained.heat.map, len(pixels)))).save(file, "PNG")
    return file.getvalue()
