"""Small real pictures in memory: crops of the sample photographs, one class per photograph."""

import functools
import hashlib
from pathlib import Path

import numpy as np

import export
from models.preprocess.decode import decode
from models.preprocess.errors import BrokenImageError
from training.data.pictures import Data

PHOTOS = sorted((Path(export.__file__).parent / "photos").glob("*.jpg"))


class CropPictures:
    """`count` crops of `side` pixels, dealt over the first `classes` photographs."""

    def __init__(self, count, *, classes=4, side=48, seed=0, broken=()):
        self.labels = tuple(path.stem for path in PHOTOS[:classes])
        self.targets = np.arange(count, dtype=np.int64) % classes
        self.broken = frozenset(broken)
        generator = np.random.default_rng(seed)
        self.pixels = [crop(photo(int(target)), side, generator) for target in self.targets]

    def __len__(self):
        return len(self.targets)

    def read(self, index):
        if index in self.broken:
            raise BrokenImageError("damaged")
        return self.pixels[index]

    def name(self, index):
        return f"{self.labels[self.targets[index]]}/{index}"

    def file(self, index):
        return None

    def digest(self, index):
        return hashlib.blake2b(self.pixels[index].tobytes(), digest_size=8).digest()

    def size(self, index):
        return self.pixels[index].nbytes

    def fingerprint(self):
        return hashlib.sha256(np.stack(self.pixels).tobytes() + self.targets.tobytes()).hexdigest()


@functools.cache
def photo(index):
    return decode(PHOTOS[index].read_bytes())


def crop(pixels, side, generator):
    top, left = (int(generator.integers(0, length - 2 * side)) for length in pixels.shape[:2])
    return np.ascontiguousarray(pixels[top : top + 2 * side : 2, left : left + 2 * side : 2])


def crops(train=48, val=16, **options):
    """Data of so many crops."""
    return Data(
        train=CropPictures(train, seed=1, **options),
        val=CropPictures(val, seed=2, **{**options, "broken": ()}),
        description="crops of the sample photographs",
        own_split=True,
    )
