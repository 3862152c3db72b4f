"""One pass over all images of a data set: which can't be read, and hashes of the pixels of the others."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass

from rich.console import Console
from rich.progress import track

from models.preprocess.errors import ImageError
from models.preprocess.resample import Pixels
from training.data.check.duplicates import Place, parts
from training.data.pictures import Data


@dataclass(frozen=True, kw_only=True)
class Reading:
    """What the pass has found."""

    hashes: dict[str, dict[int, bytes]]
    """By part and index, of size and pixels; without unreadable images."""

    broken: dict[Place, str]
    """Reason by unreadable image."""


def read_all(data: Data, each: Callable[[Place, Pixels], None]) -> Reading:
    """Read every image of all parts, and call `each` with those that can be read."""
    console = Console(stderr=True)
    reading = Reading(hashes={}, broken={})
    for part, pictures in parts(data).items():
        digests = reading.hashes.setdefault(part, {})
        for index in track(range(len(pictures)), f"reading the {part} pictures", console=console, transient=True):
            try:
                pixels = pictures.read(index)
            except ImageError as error:
                reading.broken[part, index] = str(error)
                continue
            digests[index] = hashlib.blake2b(f"{pixels.shape}".encode() + pixels.tobytes(), digest_size=16).digest()
            each((part, index), pixels)
    return reading
