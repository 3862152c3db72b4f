"""Labelled images of a table that join the training part, without those that a held-out part has too."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np

from models.common.errors import HalftoneError
from training.data.check.doublets import Thumbnails, near_others
from training.data.check.duplicates import NAMED, Place, parts
from training.data.check.reading import read_all
from training.data.pictures import Added, Data
from training.data.sources.csv_table import load_rows
from training.data.subsets import JoinedPictures, SelectedPictures

_MINE = "training"


def add_pictures(data: Data, file: Path) -> Data:
    """Return the data with the images of a table in its training part.

    An image that equals a held-out image, or hardly differs from one, is left out: with it in training, the accuracy
    would be too high. Reads every held-out image, and again with features (12 ms of a core each) if some are alike.

    Args:
        data: the images of `--data`.
        file: table with a column of files and one of labels, which are classes of the data.

    Raises:
        HalftoneError: the table can't be used, or no image of it is left.
    """
    pictures = load_rows(file, data.train.labels)
    compared = replace(data, train=pictures)
    twins = _held_out_twins(compared)
    left_out = tuple(_described(compared, index, twin) for index, twin in sorted(twins.items()))
    chosen = np.array([index for index in range(len(pictures)) if index not in twins], dtype=np.int64)
    if not len(chosen):
        raise HalftoneError(
            f"--add {file}: the held-out parts of the data have every picture of it, such as {left_out[0]}: add others"
        )
    added = Added(
        pictures=SelectedPictures(pictures, chosen), file=str(file), left_out=left_out, fingerprint=data.fingerprint()
    )
    return replace(
        data,
        train=JoinedPictures(data.train, added.pictures),
        added=added,
        description=f"{data.description}, and {len(chosen)} pictures of {file.name}",
        warnings=data.warnings + _warnings(left_out),
    )


def _held_out_twins(compared: Data) -> dict[int, Place]:
    """Return the held-out image that equals, or hardly differs from, an image of the training part, by its index."""
    places: list[Place] = []
    thumbnails = Thumbnails()

    def keep(place: Place, pixels: np.ndarray[tuple[int, ...], np.dtype[np.uint8]]) -> None:
        places.append(place)
        thumbnails.add(pixels)

    hashes = read_all(compared, keep).hashes
    small, mine = thumbnails.pixels(), np.array([part == _MINE for part, _ in places], dtype=bool)
    near = near_others(small, None, mine)
    if near:
        near = near_others(small, _components(compared), mine)
    return _equal(hashes) | {places[index][1]: places[other] for index, other in near.items()}


def _equal(hashes: Mapping[str, Mapping[int, bytes]]) -> dict[int, Place]:
    held_out = {
        value: (part, index) for part, of_part in hashes.items() if part != _MINE for index, value in of_part.items()
    }
    return {index: held_out[value] for index, value in hashes[_MINE].items() if value in held_out}


def _components(compared: Data) -> np.ndarray[tuple[int, ...], np.dtype[np.float32]]:
    # Imported here: it needs PyTorch, which takes seconds to load.
    from training.data.check.features import Extractor

    extractor = Extractor()
    read_all(compared, lambda place, pixels: extractor.add(pixels))
    return extractor.components()


def _described(compared: Data, index: int, twin: Place) -> str:
    part, place = twin
    return f"{compared.train.name(index)} = {part} picture {parts(compared)[part].name(place)}"


def _warnings(left_out: tuple[str, ...]) -> tuple[str, ...]:
    if not left_out:
        return ()
    some = "; ".join(left_out[:NAMED]) + (f"; and {len(left_out) - NAMED} more" if len(left_out) > NAMED else "")
    return (f"{len(left_out)} added pictures are left out, as a held-out part has them or nearly the same: {some}",)
