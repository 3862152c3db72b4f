"""Tiny labelled pictures on disk, for the tests of training's data."""

import io
from pathlib import Path

import numpy as np
from PIL import Image


def picture(seed: int = 0, *, width: int = 12, height: int = 10) -> np.ndarray:
    """Coloured noise, uint8 (height, width, 3)."""
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)


def png(seed: int = 0, *, width: int = 12, height: int = 10) -> bytes:
    """The same as a PNG file."""
    buffer = io.BytesIO()
    Image.fromarray(picture(seed, width=width, height=height)).save(buffer, "PNG")
    return buffer.getvalue()


def class_folders(root: Path, counts: dict[str, int], *, first_seed: int = 0) -> Path:
    """One folder per class with so many different pictures `NUMBER.png`."""
    seed = first_seed
    for name, count in counts.items():
        (root / name).mkdir(parents=True)
        for number in range(count):
            (root / name / f"{number:03d}.png").write_bytes(png(seed))
            seed += 1
    return root
