"""Images that occur more than once, by a hash of their content: under two labels, in two parts, within a part."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
from rich.console import Console
from rich.progress import track

from models.common.host import cores
from models.dataset import Digests
from models.preprocess.errors import ImageError
from training.data.pictures import Data, Pictures

# Few enough futures for millions of images, and enough for a smooth progress bar.
CHUNK = 256

NAMED = 3
"""Number of pairs that a warning names."""

Place = tuple[str, int]
"""Part (`training`, `validation` or `test`) and index."""


def digests(pictures: Pictures, chosen: Sequence[int] | None = None) -> Digests:
    """Return uint64 (N,): the hash by `Pictures.digest` of the chosen images, or of all.

    The hash of an image that can't be read is 0. Reads every file once, without decoding it.
    """
    indices = range(len(pictures)) if chosen is None else chosen
    chunks = [indices[start : start + CHUNK] for start in range(0, len(indices), CHUNK)]
    hashes: list[int] = []
    with ThreadPoolExecutor(cores()) as pool:
        parts = pool.map(lambda chunk: [_digest(pictures, index) for index in chunk], chunks)
        console = Console(stderr=True)
        # Into a file, a finished bar would write an empty line.
        silent = not console.is_terminal
        for part in track(parts, "hashing the pictures", len(chunks), console=console, transient=True, disable=silent):
            hashes += part
    return np.array(hashes, dtype=np.uint64)


@dataclass(frozen=True, kw_only=True)
class Duplicates:
    """Pairs of equal images, described in words."""

    mislabelled: list[str]
    """Under two labels: one of them is wrong."""

    shared: list[str]
    """With one label in two parts: the accuracy is too high."""

    repeated: list[str]
    """With one label within a part."""

    def warnings(self) -> list[str]:
        """Return a line for each kind that occurs; it names the first pairs."""
        kinds = (
            (
                self.mislabelled,
                "times a picture has two labels, one of which is wrong",
                "remove the wrong one",
            ),
            (self.shared, "times a picture is in two parts, which makes the accuracy too high", "remove it from one"),
            (self.repeated, "times a picture is repeated within a part", "remove the copies, or leave them"),
        )
        return [f"{len(pairs)} {what} ({fix}): {_some(pairs)}" for pairs, what, fix in kinds if pairs]


def find_duplicates(data: Data) -> Duplicates:
    """Compare the files of all parts; only those of the same size are read and hashed."""
    everything = parts(data)
    by_size: dict[int, list[Place]] = defaultdict(list)
    for part, pictures in everything.items():
        for index in range(len(pictures)):
            if (size := pictures.size(index)) is not None:
                by_size[size].append((part, index))
    chosen: dict[str, list[int]] = {part: [] for part in everything}
    for places in by_size.values():
        if len(places) > 1:
            for part, index in places:
                chosen[part].append(index)
    hashes: dict[str, Mapping[int, object]] = {
        part: dict(zip(indices, digests(everything[part], indices).tolist(), strict=True))
        for part, indices in chosen.items()
        if indices
    }
    return equal_pairs(data, hashes)


def equal_pairs(data: Data, hashes: Mapping[str, Mapping[int, object]]) -> Duplicates:
    """Sort images of equal hash into the three kinds; each is compared with the first that has its hash.

    Args:
        data: the images.
        hashes: by part (`training`, `validation`, `test`) and index; a hash of 0 is none.
    """
    everything = parts(data)
    found = Duplicates(mislabelled=[], shared=[], repeated=[])
    for twin, place in equal_places(hashes):
        same_label = label(everything, twin) == label(everything, place)
        kind = found.mislabelled if not same_label else found.repeated if twin[0] == place[0] else found.shared
        kind.append(f"{_described(everything, twin)} = {_described(everything, place)}")
    return found


def equal_places(hashes: Mapping[str, Mapping[int, object]]) -> Iterator[tuple[Place, Place]]:
    """Yield each image with an equal one before it, that first; arguments as for `equal_pairs`."""
    first = dict[object, Place]()
    for part, of_part in hashes.items():
        for index, value in sorted(of_part.items()):
            twin = first.setdefault(value, (part, index))
            if value and twin != (part, index):
                yield twin, (part, index)


def parts(data: Data) -> dict[str, Pictures]:
    """Return the images of each part that the data has: `training`, `validation`, `test`."""
    return {"training": data.train, "validation": data.val} | ({"test": data.test} if data.test is not None else {})


def label(everything: Mapping[str, Pictures], place: Place) -> str:
    """Return the class of an image."""
    pictures = everything[place[0]]
    return pictures.labels[int(pictures.targets[place[1]])]


def _described(everything: Mapping[str, Pictures], place: Place) -> str:
    return f"{place[0]} picture {everything[place[0]].name(place[1])} ({label(everything, place)!r})"


def _some(pairs: list[str]) -> str:
    return "; ".join(pairs[:NAMED]) + (f"; and {len(pairs) - NAMED} more" if len(pairs) > NAMED else "")


def _digest(pictures: Pictures, index: int) -> int:
    try:
        return int.from_bytes(pictures.digest(index), "little")
    except ImageError:
        return 0
