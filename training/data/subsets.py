"""Labelled pictures made of other labelled pictures: some of them, two sets as one, other classes."""

from __future__ import annotations

import hashlib

import numpy as np
import numpy.typing as npt

from models.preprocess.resample import Pixels
from training.data.pictures import Pictures, fingerprint


class SelectedPictures:
    """Some of the pictures of another set.

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
        """As the whole set reads it."""
        return self._pictures.read(int(self._chosen[index]))

    def name(self, index: int) -> str:
        """As the whole set calls it."""
        return self._pictures.name(int(self._chosen[index]))

    def digest(self, index: int) -> bytes:
        """Of the picture in the whole set."""
        return self._pictures.digest(int(self._chosen[index]))

    def fingerprint(self) -> str:
        """Over the whole set and the choice."""
        digest = hashlib.sha256(self._pictures.fingerprint().encode())
        digest.update(self._chosen.tobytes())
        return digest.hexdigest()


class JoinedPictures:
    """Two sets with the same classes as one.

    Args:
        first: comes first.
        second: comes after it.
    """

    def __init__(self, first: Pictures, second: Pictures) -> None:
        self._first, self._second = first, second
        self.labels, self.targets = first.labels, np.concatenate([first.targets, second.targets])

    def __len__(self) -> int:
        return len(self.targets)

    def read(self, index: int) -> Pixels:
        """As the part reads it."""
        part, place = self._find(index)
        return part.read(place)

    def name(self, index: int) -> str:
        """As the part calls it."""
        part, place = self._find(index)
        return part.name(place)

    def digest(self, index: int) -> bytes:
        """Of the picture in the part."""
        part, place = self._find(index)
        return part.digest(place)

    def fingerprint(self) -> str:
        """Over both parts."""
        return hashlib.sha256((self._first.fingerprint() + self._second.fingerprint()).encode()).hexdigest()

    def _find(self, index: int) -> tuple[Pictures, int]:
        index = range(len(self))[index]
        return (self._first, index) if index < len(self._first) else (self._second, index - len(self._first))


class RelabelledPictures:
    """The same pictures with another list of classes.

    Args:
        pictures: the pictures.
        labels: class names by index.
        index: int64, the new index of every old class.
    """

    def __init__(self, pictures: Pictures, *, labels: tuple[str, ...], index: npt.NDArray[np.int64]) -> None:
        self._pictures = pictures
        self.labels, self.targets = labels, index[pictures.targets]

    def __len__(self) -> int:
        return len(self.targets)

    def read(self, index: int) -> Pixels:
        """As the other set reads it."""
        return self._pictures.read(index)

    def name(self, index: int) -> str:
        """As the other set calls it."""
        return self._pictures.name(index)

    def digest(self, index: int) -> bytes:
        """Of the picture in the other set."""
        return self._pictures.digest(index)

    def fingerprint(self) -> str:
        """Over names and new classes."""
        return fingerprint(self)
