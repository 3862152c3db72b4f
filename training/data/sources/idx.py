"""Reader of IDX files, the format of MNIST and its successors (http://yann.lecun.com/exdb/mnist), plain or gzipped."""

from __future__ import annotations

import gzip
import math
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from models.common.errors import HalftoneError
from training.data.pictures import ArrayPictures, Data
from training.data.sources.torchvision_download import cache_folder, class_names, construct

DEBIAN = Path("/usr/share/datasets")
IDX_SETS = {"MNIST": "mnist", "FashionMNIST": "fashion-mnist", "KMNIST": "kmnist"}
"""Name in torchvision to folder of Debian's package."""

UINT8 = 0x08


def read_idx(path: Path) -> npt.NDArray[np.uint8]:
    """Return the array of an IDX file of unsigned bytes.

    Args:
        path: ends in `.gz` if gzipped.

    Raises:
        HalftoneError: the file is damaged, or has another format.
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
            f"{path} is truncated: its header announces {math.prod(shape)} bytes, but {len(data) - header} follow: "
            "install or download it again"
        )
    return np.frombuffer(data, dtype=np.uint8, offset=header).reshape(shape)


def load_idx_set(name: str, root: Path | None) -> Data:
    """Load MNIST or one of its successors, with its test part for validation.

    Args:
        name: a key of IDX_SETS.
        root: folder of the files; default: Debian's package, else the cache.

    Raises:
        HalftoneError: the files are damaged, don't belong together, or are missing and can't be downloaded.
    """
    roots = [root] if root else [DEBIAN / IDX_SETS[name], cache_folder()]
    folder = _idx_folder(name, roots) or _download_idx(name, root or cache_folder())
    train, val = (_idx_part(name, folder, part) for part in ("train", "t10k"))
    return Data(
        train=train,
        val=val,
        description=f"torchvision {name}: {len(train):,} training pictures, validation on {len(val):,} test pictures",
        own_split=True,
    )


def _idx_folder(name: str, roots: list[Path]) -> Path | None:
    places = [place for root in roots for place in (root, root / name / "raw", root / "raw")]
    return next((place for place in places if _idx_file(place, "t10k-labels-idx1-ubyte")), None)


def _idx_file(folder: Path, stem: str) -> Path | None:
    return next((path for path in (folder / f"{stem}.gz", folder / stem) if path.is_file()), None)


def _download_idx(name: str, root: Path) -> Path:
    construct(name, root, {"train": True}, advice=f"install Debian's dataset-{IDX_SETS[name]}")
    return root / name / "raw"


def _idx_part(name: str, folder: Path, part: str) -> ArrayPictures:
    images, targets = (_idx_array(folder, f"{part}-{kind}-ubyte") for kind in ("images-idx3", "labels-idx1"))
    labels = _class_names(name)
    if images.ndim != 3 or targets.shape != images.shape[:1] or int(targets.max(initial=0)) >= len(labels):
        raise HalftoneError(
            f"the {part} files of {name} in {folder} do not belong together: install or download them again"
        )
    return ArrayPictures(labels=labels, targets=targets.astype(np.int64), images=images, title=f"{name} {part}")


def _idx_array(folder: Path, stem: str) -> Any:
    path = _idx_file(folder, stem)
    if path is None:
        raise HalftoneError(f"{folder} has no {stem}.gz: all four files of the set must be in it")
    return read_idx(path)


def _class_names(name: str) -> tuple[str, ...]:
    import torchvision

    return class_names(getattr(torchvision.datasets, name).classes)
