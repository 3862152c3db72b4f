"""torchvision's data sets by name, such as `torchvision:FashionMNIST`; only missing files are downloaded.

MNIST and its successors are read from their IDX files, also from Debian's packages. A test part serves for validation;
without one, some training images are held out.
"""

from __future__ import annotations

import difflib
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from models.common.errors import HalftoneError
from models.dataset import content_digest
from models.preprocess.decode import decode, upright
from models.preprocess.errors import BrokenImageError, NotAnImageError, UnsupportedFormatError
from models.preprocess.resample import Pixels
from training.data.pictures import ArrayPictures, Data, Names, Pictures, Targets, file_size, fingerprint, read_file
from training.data.sources.idx import IDX_SETS, load_idx_set
from training.data.sources.torchvision_download import cache_folder, class_names, construct
from training.data.split import Shares, divided


@dataclass(frozen=True, kw_only=True)
class _Parts:
    """Arguments of torchvision's constructor for the two parts."""

    train: dict[str, Any]
    val: dict[str, Any] | None = None


_BY_FLAG = _Parts(train={"train": True}, val={"train": False})
_BY_SPLIT = _Parts(train={"split": "train"}, val={"split": "test"})
_WITH_VAL = _Parts(train={"split": "train"}, val={"split": "val"})

SETS: dict[str, _Parts] = {
    "CIFAR10": _BY_FLAG,
    "CIFAR100": _BY_FLAG,
    "SVHN": _BY_SPLIT,
    "STL10": _BY_SPLIT,
    "GTSRB": _BY_SPLIT,
    "Food101": _BY_SPLIT,
    "FGVCAircraft": _WITH_VAL,
    "Flowers102": _WITH_VAL,
    "DTD": _WITH_VAL,
    "Imagenette": _WITH_VAL,
    "OxfordIIITPet": _Parts(train={"split": "trainval"}, val={"split": "test"}),
    "EuroSAT": _Parts(train={}),
    "Caltech101": _Parts(train={}),
    "Caltech256": _Parts(train={}),
}
"""Sets with known parts, in addition to IDX_SETS."""


def load_torchvision(name: str, shares: Shares) -> Data:
    """Load a data set by torchvision's name.

    Args:
        name: such as `FashionMNIST`, or `CIFAR10@FOLDER` with the folder for the files.
        shares: of the parts if the set has no test part.

    Raises:
        HalftoneError: no such set, or its files are missing and can't be downloaded.
    """
    name, _, folder = name.partition("@")
    if name in IDX_SETS:
        return load_idx_set(name, Path(folder).expanduser() if folder else None)
    if name not in SETS:
        known = [*IDX_SETS, *SETS]
        near = difflib.get_close_matches(name, known, n=1, cutoff=0.5)
        hint = f"did you mean {near[0]}? " if near else ""
        raise HalftoneError(f"no torchvision data set is called {name!r}: {hint}choose one of {', '.join(known)}")
    return _torchvision_set(name, Path(folder).expanduser() if folder else cache_folder(), shares)


def _torchvision_set(name: str, root: Path, shares: Shares) -> Data:
    parts = SETS[name]
    advice = "connect to the network once"
    pictures = _wrap(name, construct(name, root, parts.train, advice=advice))
    if parts.val is not None:
        val = _wrap(name, construct(name, root, parts.val, advice=advice))
        return Data(train=pictures, val=val, description=f"torchvision {name}: its own parts", own_split=True)
    return divided(pictures, f"torchvision {name}", shares)


def _wrap(name: str, dataset: Any) -> Pictures:
    targets = _targets(dataset)
    classes = getattr(dataset, "classes", None) or getattr(dataset, "categories", None)
    labels = class_names(classes or range(int(targets.max()) + 1))
    data = getattr(dataset, "data", None)
    if isinstance(data, np.ndarray) and data.ndim == 4:
        # SVHN and STL10 keep channels first.
        images = data if data.shape[3] == 3 else data.transpose(0, 2, 3, 1)
        return ArrayPictures(labels=labels, targets=targets, images=images, title=name)
    return TorchvisionPictures(labels=labels, targets=targets, dataset=dataset, title=name)


def _targets(dataset: Any) -> Targets:
    for attribute in ("targets", "_labels", "labels", "y"):
        if hasattr(dataset, attribute):
            return np.asarray(getattr(dataset, attribute), dtype=np.int64)
    return np.array([target for _, target in dataset._samples], dtype=np.int64)


def _files(dataset: Any) -> Names | None:
    """Return the paths of the images' files; None if the data set does not keep them."""
    for attribute in ("_samples", "samples", "imgs", "_image_files", "_images"):
        entries = getattr(dataset, attribute, None)
        if entries:
            return Names([os.fspath(entry[0] if isinstance(entry, tuple) else entry) for entry in entries])
    return None


class TorchvisionPictures:
    """Images of a torchvision data set in files.

    Args:
        labels: class names by index.
        targets: int64 (N,).
        dataset: returns (PIL image, class) by index.
        title: name of the images, followed by their number.
    """

    def __init__(self, *, labels: tuple[str, ...], targets: Targets, dataset: Any, title: str) -> None:
        self.labels, self.targets = labels, targets
        self._dataset, self._title = dataset, title
        self._files = _files(dataset)

    def __len__(self) -> int:
        return len(self.targets)

    def read(self, index: int) -> Pixels:
        """Decode the file as serving does; if serving does not support its format, as torchvision does."""
        try:
            if self._files is not None:
                return decode(read_file(Path(self._files[index])))
        except (NotAnImageError, UnsupportedFormatError):
            # GTSRB's files are PPM, and some of Oxford-IIIT Pet's are GIF.
            pass
        return self._by_torchvision(index)

    def _by_torchvision(self, index: int) -> Pixels:
        try:
            return upright(self._dataset[index][0])
        except (OSError, SyntaxError, ValueError) as error:
            raise BrokenImageError(f"{self.name(index)} is damaged ({error}): download the set again") from None

    def file(self, index: int) -> Path | None:
        """Return the path of the image's file if it is known."""
        return Path(self._files[index]) if self._files is not None else None

    def digest(self, index: int) -> bytes:
        """Return the hash of the file's bytes, or of the pixels if the file is not known."""
        if self._files is not None:
            return content_digest(read_file(Path(self._files[index])))
        return content_digest(self.read(index).tobytes())

    def size(self, index: int) -> int | None:
        """Return the size of the file if it is known."""
        return file_size(Path(self._files[index])) if self._files is not None else None

    def name(self, index: int) -> str:
        """Return title and number."""
        return f"{self._title} {range(len(self))[index]}"

    def fingerprint(self) -> str:
        """Return the hash of names and classes."""
        return fingerprint(self)
