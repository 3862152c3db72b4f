"""Labelled pictures: the protocol that training reads from, and the two kinds there are (files, arrays in memory)."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np
import numpy.typing as npt

from models.preprocess.decode import BrokenImageError, ImageError, decode
from models.preprocess.resample import Pixels

Targets = npt.NDArray[np.int64]


class Pictures(Protocol):
    """Labelled pictures with random access; picklable, and cheap to share with forked loader processes."""

    @property
    def labels(self) -> tuple[str, ...]:
        """Class names by index."""

    @property
    def targets(self) -> Targets:
        """int64 (N,): every picture's class."""

    def __len__(self) -> int: ...

    def read(self, index: int) -> Pixels:
        """Upright RGB, uint8 (H, W, 3).

        Raises:
            models.preprocess.decode.ImageError: the picture can't be read.
        """

    def name(self, index: int) -> str:
        """What messages and the report call the picture."""

    def digest(self, index: int) -> bytes:
        """8 bytes that change with the picture's content and with nothing else, found without decoding a file.

        Raises:
            models.preprocess.decode.ImageError: the file can't be read at all.
        """

    def fingerprint(self) -> str:
        """64 hexadecimal digits that change with any name or class: lineage, and resuming on the same data only."""


@dataclass(frozen=True, kw_only=True)
class Data:
    """What a model learns from and what it is judged by."""

    train: Pictures
    """To learn from."""

    val: Pictures
    """To judge by; the same classes in the same order."""

    description: str
    """Where they come from, in words."""

    own_split: bool
    """Whether the data says itself what is held out; otherwise it was drawn by the seed."""

    warnings: tuple[str, ...] = ()
    """What the user should know but need not change."""

    def fingerprint(self) -> str:
        """Of both parts, joined by `+`: equal for equal pictures, classes and split."""
        return f"{self.train.fingerprint()}+{self.val.fingerprint()}"


class Names:
    """A list of strings as one block of bytes.

    A list of a million Python strings is copied page by page into every forked loader process, because looking at a
    string writes its reference count; a numpy array is not.
    """

    def __init__(self, names: Sequence[str]) -> None:
        encoded = [os.fsencode(name) for name in names]
        self._bytes = np.frombuffer(b"".join(encoded), dtype=np.uint8)
        self._ends = np.cumsum([len(name) for name in encoded], dtype=np.int64)

    def __len__(self) -> int:
        return len(self._ends)

    def __getitem__(self, index: int) -> str:
        index = range(len(self))[index]
        start = int(self._ends[index - 1]) if index else 0
        return os.fsdecode(self._bytes[start : int(self._ends[index])].tobytes())


class FilePictures:
    """Pictures in files, decoded when they are asked for.

    Args:
        labels: class names by index.
        targets: int64 (N,).
        root: folder that the paths start from.
        paths: the files, relative to `root` (or absolute).
    """

    def __init__(self, *, labels: tuple[str, ...], targets: Targets, root: Path, paths: Sequence[str]) -> None:
        self.labels, self.targets = labels, targets
        self._root, self._paths = root, Names(paths)

    def __len__(self) -> int:
        return len(self.targets)

    def path(self, index: int) -> Path:
        """Where the picture lies."""
        return self._root / self._paths[index]

    def read(self, index: int) -> Pixels:
        """The picture through `models.preprocess.decode.decode`; a file that can't be opened is a broken picture."""
        return decode(read_file(self.path(index)))

    def name(self, index: int) -> str:
        """The path below the data's folder; bytes that are no text are shown as escapes."""
        return os.fsencode(self._paths[index]).decode(errors="backslashreplace")

    def digest(self, index: int) -> bytes:
        """Of the file's bytes."""
        return content_digest(read_file(self.path(index)))

    def fingerprint(self) -> str:
        """Over paths and classes, not over the files' content, which would mean reading all of them."""
        return fingerprint(self)


class ArrayPictures:
    """Pictures of one size that lie decoded in memory.

    Args:
        labels: class names by index.
        targets: int64 (N,).
        images: uint8 (N, H, W) grey or (N, H, W, 3) RGB.
        title: what the pictures are called, before their number.
    """

    def __init__(self, *, labels: tuple[str, ...], targets: Targets, images: npt.NDArray[np.uint8], title: str) -> None:
        self.labels, self.targets = labels, targets
        self._images, self._title = images, title

    def __len__(self) -> int:
        return len(self.targets)

    def read(self, index: int) -> Pixels:
        """The picture; grey ones with three equal channels."""
        image = self._images[index]
        return image if image.ndim == 3 else np.repeat(image[:, :, None], 3, axis=2)

    def name(self, index: int) -> str:
        """Title and number."""
        return f"{self._title} {range(len(self))[index]}"

    def digest(self, index: int) -> bytes:
        """Of the pixels."""
        return content_digest(self._images[index].tobytes())

    def fingerprint(self) -> str:
        """Over names, classes and every pixel."""
        return fingerprint(self, np.ascontiguousarray(self._images))


def read_file(path: Path) -> bytes:
    """The bytes of a picture's file.

    Raises:
        BrokenImageError: it can't be opened.
    """
    try:
        return path.read_bytes()
    except OSError as error:
        raise BrokenImageError(f"the file can't be read ({error.strerror}): put it back or remove it") from None


def read_named(pictures: Pictures, index: int) -> Pixels:
    """`pictures.read(index)`, with the picture's name before the message of an error."""
    try:
        return pictures.read(index)
    except ImageError as error:
        raise type(error)(f"{pictures.name(index)}: {error}") from None


def content_digest(content: bytes) -> bytes:
    """BLAKE2b of 8 bytes."""
    return hashlib.blake2b(content, digest_size=8).digest()


def fingerprint(pictures: Pictures, content: npt.NDArray[np.uint8] | None = None) -> str:
    """SHA-256 over the class names, every picture's name and class, and the pixels where they are given."""
    digest = hashlib.sha256("\0".join(pictures.labels).encode(errors="surrogateescape"))
    digest.update("\0".join(pictures.name(index) for index in range(len(pictures))).encode())
    digest.update(pictures.targets.tobytes())
    if content is not None:
        digest.update(content.data.cast("B"))
    return digest.hexdigest()
