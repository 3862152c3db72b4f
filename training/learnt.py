"""What a model learnt from, kept with its bundle, so that nobody judges it by the same pictures unawares.

The file holds a hash of every training picture's content: names would not do, since `train/cat/1.png` and
`val/cat/1.png` are two pictures, and a renamed picture is the same as before.
"""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import numpy as np
import numpy.typing as npt
from rich.console import Console
from rich.progress import track

from models.bundle import Bundle
from models.host import cores
from models.preprocess import ImageError
from training.data.pictures import Pictures

FILE = "training_pictures.bin"

Digests = npt.NDArray[np.uint64]

# Few enough futures for millions of pictures, and enough for a smooth bar.
TOGETHER = 256


def digests(pictures: Pictures) -> Digests:
    """uint64 (N,): every picture's hash by `Pictures.digest`; 0 for a picture that can't be read.

    Reads every file once, without decoding it.
    """
    starts = range(0, len(pictures), TOGETHER)
    found = np.zeros(len(pictures), dtype=np.uint64)
    with ThreadPoolExecutor(cores()) as pool:
        parts = pool.map(lambda start: _some(pictures, start), starts)
        what = "hashing the pictures"
        for start, part in track(
            zip(starts, parts, strict=True), what, len(starts), console=Console(stderr=True), transient=True
        ):
            found[start : start + len(part)] = part
    return found


def record(pictures: Pictures) -> bytes:
    """The content of the bundle's file: the sorted hashes of the training pictures, 8 bytes each, little-endian."""
    found = np.unique(digests(pictures))
    return found[found > 0].astype("<u8").tobytes()


def learnt_by(bundle: Bundle) -> Digests | None:
    """The hashes of what the bundle's weights learnt from, ascending; None where that is not recorded.

    Raises:
        BundleError: the file is listed, but is not what was written.
    """
    if not bundle.has(FILE):
        return None
    return np.frombuffer(bundle.read(FILE), dtype="<u8").astype(np.uint64)


def _some(pictures: Pictures, start: int) -> list[int]:
    return [_digest(pictures, index) for index in range(start, min(start + TOGETHER, len(pictures)))]


def _digest(pictures: Pictures, index: int) -> int:
    try:
        return int.from_bytes(pictures.digest(index), "little")
    except ImageError:
        return 0
