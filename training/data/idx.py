"""The IDX files of MNIST and its successors (http://yann.lecun.com/exdb/mnist), plain or gzipped."""

from __future__ import annotations

import gzip
import math
import zlib
from pathlib import Path

import numpy as np
import numpy.typing as npt

from models.errors import HalftoneError

UINT8 = 0x08


def read_idx(path: Path) -> npt.NDArray[np.uint8]:
    """The array in an IDX file of unsigned bytes.

    Args:
        path: ends in `.gz` if gzipped.

    Raises:
        HalftoneError: the file is damaged, or not of that format.
    """
    try:
        data = gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()
    except (OSError, EOFError, zlib.error) as error:
        raise HalftoneError(f"{path} is damaged ({error}): install or download it again") from None
    if len(data) < 4 or data[:2] != b"\0\0" or data[2] != UINT8:
        raise HalftoneError(f"{path} is not an IDX file of bytes: install or download it again")
    header = 4 + 4 * data[3]
    shape = [int.from_bytes(data[start : start + 4], "big") for start in range(4, header, 4)]
    if len(data) - header != math.prod(shape):
        raise HalftoneError(
            f"{path} is cut short: its header announces {math.prod(shape)} bytes and {len(data) - header} follow: "
            "install or download it again"
        )
    return np.frombuffer(data, dtype=np.uint8, offset=header).reshape(shape)
