"""Views of labelled images: a selection, two sets as one, other classes."""

from __future__ import annotations

import hashlib
from pathlib import Path

import numpy as np
import numpy.typing as npt

from models.preprocess.resample import Pixels
from training.data.pictures import Pictures, fingerprint


class SelectedPictures:
    """Selection of the images of another set.

    Args:
        pictures: the whole set.
        chosen: int64 (M,) indices into it.
    """

    def __init__(self, pictures: Pictures, chosen: npt.NDArray[np.int64]) -> None:
        self._pictures, self._chosen = pictures, chosen
        self.labels, self.targets = pictures.labels, pictures.targets[chosen]

    def __len__(self) -> int:
        return len(self._chosen)

    def read(self, index: int) -> Pixels:
        """Return the image of the whole set."""
        return self._pictures.read(int(self._chosen[index]))

    def name(self, index: int) -> str:
        """Return the name in the whole set."""
        return self._pictures.name(int(self._chosen[index]))

    def file(self, index: int) -> Path | None:
        """Return the file in the whole set."""
        return self._pictures.file(int(self._chosen[index]))

    def digest(self, index: int) -> bytes:
        """Return the hash of the image in the whole set."""
        return self._pictures.digest(int(self._chosen[index]))

    def size(self, index: int) -> int | None:
        """Return the size in the whole set."""
        return self._pictures.size(int(self._chosen[index]))

    def fingerprint(self) -> str:
        """Return the hash of the whole set and the selection."""
        digest = hashlib.sha256(self._pictures.fingerprint().encode())
        digest.update(self._chosen.tobytes())
        return digest.hexdigest()


class JoinedPictures:
    """Concatenation of two sets with the same classes.

    Args:
        first: the set with the lower indices.
        second: the set with the higher indices.
    """

    def __init__(self, first: Pictures, second: Pictures) -> None:
        self._first, self._second = first, second
        self.labels, self.targets = first.labels, np.concatenate([first.targets, second.targets])

    def __len__(self) -> int:
        return len(self.targets)

    def read(self, index: int) -> Pixels:
        """Return the image of the part."""
        part, place = self._find(index)
        return part.read(place)

    def name(self, index: int) -> str:
        """Return the name in the part."""
        part, place = self._find(index)
        return part.name(place)

    def file(self, index: int) -> Path | None:
        """Return the file in the part."""
        part, place = self._find(index)
        return part.file(place)

    def digest(self, index: int) -> bytes:
        """Return the hash of the image in the part."""
        part, place = self._find(index)
        return part.digest(place)

    def size(self, index: int) -> int | None:
        """Return the size in the part."""
        part, place = self._find(index)
        return part.size(place)

    def fingerprint(self) -> str:
        """Return the hash of both parts."""
        return hashlib.sha256((self._first.fingerprint() + self._second.fingerprint()).encode()).hexdigest()

    def _find(self, index: int) -> tuple[Pictures, int]:
        index = range(len(self))[index]
        return (self._first, index) if index < len(self._first) else (self._second, index - len(self._first))


class RelabelledPictures:
    """Same images with another list of classes.

    Args:
        pictures: the images.
        labels: class names by index.
        index: int64, new class index of every old one.
    """

    def __init__(self, pictures: Pictures, *, labels: tuple[str, ...], index: npt.NDArray[np.int64]) -> None:
        self._pictures = pictures
        self.labels, self.targets = labels, index[pictures.targets]

    def __len__(self) -> int:
        return len(self.targets)

    def read(self, index: int) -> Pixels:
        """Return the image of the other set."""
        return self._pictures.read(index)

    def name(self, index: int) -> str:
        """Return the name in the other set."""
        return self._pictures.name(index)

    def file(self, index: int) -> Path | None:
        """Return the file in the other set."""
        return self._pictures.file(index)

    def digest(self, index: int) -> bytes:
        """Return the hash of the image in the other set."""
        return self._pictures.digest(index)

    def size(self, index: int) -> int | None:
        """Return the size in the other set."""
        return self._pictures.size(index)

    def fingerprint(self) -> str:
        """Return the hash of names and new classes."""
        return fingerprint(self)
