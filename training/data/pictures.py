"""Labelled images: the protocol of a data set, with one implementation for files and one for arrays in memory."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np
import numpy.typing as npt

from models.dataset import content_digest
from models.preprocess.decode import decode
from models.preprocess.errors import BrokenImageError, ImageError
from models.preprocess.resample import Pixels

Targets = npt.NDArray[np.int64]


CHOSEN_ON_TEST = (
    "there is no validation part, so {test} chooses the epoch and the temperature, and the accuracy on it is too high: "
    "{fix} to keep {test} for one honest evaluation"
)
TEST_LEFT_ALONE = "{test} chooses nothing: it is read once, after the training, for the accuracy that is reported"
"""What the user must know about the test part."""


class Pictures(Protocol):
    """Labelled images with random access; picklable, and cheap to share with forked loader processes."""

    @property
    def labels(self) -> tuple[str, ...]:
        """Class names by index."""

    @property
    def targets(self) -> Targets:
        """int64 (N,): class indices."""

    def __len__(self) -> int: ...

    def read(self, index: int) -> Pixels:
        """Return upright RGB, uint8 (H, W, 3).

        Raises:
            models.preprocess.decode.ImageError: the image can't be read.
        """

    def name(self, index: int) -> str:
        """Return the image's name for messages and the report."""

    def file(self, index: int) -> Path | None:
        """Return the image's file; None if it is not in a file of its own."""

    def digest(self, index: int) -> bytes:
        """Return a hash of the content alone, 8 bytes, without decoding a file.

        Raises:
            models.preprocess.decode.ImageError: the file can't be read at all.
        """

    def size(self, index: int) -> int | None:
        """Return the number of bytes that `digest` hashes; None if that takes decoding or the file can't be read."""

    def fingerprint(self) -> str:
        """Return 64 hexadecimal digits that depend on all names and classes; used for the lineage and for resuming."""


@dataclass(frozen=True, kw_only=True)
class Added:
    """Images of another source that joined a training part."""

    pictures: Pictures
    """They are the last ones of the training part."""

    file: str
    """Table that lists them."""

    left_out: tuple[str, ...]
    """Images of the table that a held-out part has too, described in words."""

    fingerprint: str
    """Of the data without them."""


@dataclass(frozen=True, kw_only=True)
class Data:
    """Training and validation images."""

    train: Pictures

    val: Pictures
    """With the same classes in the same order."""

    description: str
    """Source and split in words."""

    test: Pictures | None = None
    """Images that training leaves alone, with the same classes; None if the data has no such part."""

    own_split: bool
    """True if the data defines the held-out part; otherwise the seed does."""

    warnings: tuple[str, ...] = ()
    """For the user, about usable but unusual data."""

    added: Added | None = None
    """Images that are not of the data itself; None without any."""

    def fingerprint(self) -> str:
        """Return the fingerprints of both parts, joined by `+`: equal for equal images, classes and split.

        Added images don't change it, so that an evaluation still knows the data and its held-out part.
        """
        if self.added is not None:
            return self.added.fingerprint
        return f"{self.train.fingerprint()}+{self.val.fingerprint()}"


class Names:
    """List of strings, stored as one block of bytes.

    A list of a million Python strings is copied page by page into every forked loader process, because reading a string
    writes its reference count. A numpy array is not copied.
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
    """Images in files, decoded by every `read`.

    Args:
        labels: class names by index.
        targets: int64 (N,).
        root: base folder of the paths.
        paths: the files, relative to `root` or absolute.
    """

    def __init__(self, *, labels: tuple[str, ...], targets: Targets, root: Path, paths: Sequence[str]) -> None:
        self.labels, self.targets = labels, targets
        self._root, self._paths = root, Names(paths)

    def __len__(self) -> int:
        return len(self.targets)

    def file(self, index: int) -> Path:
        """Return the path of the image's file."""
        return self._root / self._paths[index]

    def read(self, index: int) -> Pixels:
        """Decode the file; one that can't be opened is a broken image."""
        return decode(read_file(self.file(index)))

    def name(self, index: int) -> str:
        """Return the path below the data's folder, with escapes for bytes that are not UTF-8."""
        return os.fsencode(self._paths[index]).decode(errors="backslashreplace")

    def digest(self, index: int) -> bytes:
        """Return the hash of the file's bytes."""
        return content_digest(read_file(self.file(index)))

    def size(self, index: int) -> int | None:
        """Return the file's size in bytes."""
        return file_size(self.file(index))

    def fingerprint(self) -> str:
        """Return the hash of paths and classes, without the files' content: hashing it would read every file."""
        return fingerprint(self)


class ArrayPictures:
    """Decoded images of one size in memory.

    Args:
        labels: class names by index.
        targets: int64 (N,).
        images: uint8 (N, H, W) grey or (N, H, W, 3) RGB.
        title: name of the images, followed by their number.
    """

    def __init__(self, *, labels: tuple[str, ...], targets: Targets, images: npt.NDArray[np.uint8], title: str) -> None:
        self.labels, self.targets = labels, targets
        self._images, self._title = images, title

    def __len__(self) -> int:
        return len(self.targets)

    def read(self, index: int) -> Pixels:
        """Return the image; a grey one with three equal channels."""
        image = self._images[index]
        return image if image.ndim == 3 else np.repeat(image[:, :, None], 3, axis=2)

    def name(self, index: int) -> str:
        """Return title and number."""
        return f"{self._title} {range(len(self))[index]}"

    def file(self, index: int) -> Path | None:
        """Return None: the images are in memory."""
        return None

    def digest(self, index: int) -> bytes:
        """Return the hash of the pixels."""
        return content_digest(self._images[index].tobytes())

    def size(self, index: int) -> int | None:
        """Return the number of bytes of the pixels."""
        return int(self._images[index].nbytes)

    def fingerprint(self) -> str:
        """Return the hash of names, classes and all pixels."""
        return fingerprint(self, np.ascontiguousarray(self._images))


def read_file(path: Path) -> bytes:
    """Return the bytes of an image file.

    Raises:
        BrokenImageError: the file can't be opened.
    """
    try:
        return path.read_bytes()
    except OSError as error:
        raise BrokenImageError(f"the file can't be read ({error.strerror}): put it back or remove it") from None


def file_size(path: Path) -> int | None:
    """Return the size of a file in bytes; None if there is no such file."""
    try:
        return path.stat().st_size
    except OSError:
        return None


def read_named(pictures: Pictures, index: int) -> Pixels:
    """Return `pictures.read(index)`; an error message starts with the image's name."""
    try:
        return pictures.read(index)
    except ImageError as error:
        raise type(error)(f"{pictures.name(index)}: {error}") from None


def fingerprint(pictures: Pictures, content: npt.NDArray[np.uint8] | None = None) -> str:
    """Return the SHA-256 of the class names, every image's name and class, and the pixels if given."""
    digest = hashlib.sha256("\0".join(pictures.labels).encode(errors="surrogateescape"))
    digest.update("\0".join(pictures.name(index) for index in range(len(pictures))).encode())
    digest.update(pictures.targets.tobytes())
    if content is not None:
        digest.update(content.data.cast("B"))
    return digest.hexdigest()
