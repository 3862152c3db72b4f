"""Labelled images from the location that `--data` names, by the adaptors in `training/data/sources/`."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from models.common.errors import HalftoneError
from training.config.columns import Columns
from training.data.pictures import Data, Pictures
from training.data.sources.csv_table import SUFFIXES, load_table
from training.data.sources.folder import load_folder
from training.data.sources.torchvision_download import PREFIX
from training.data.sources.torchvision_sets import load_torchvision
from training.data.split import Shares, stratified_sample
from training.data.subsets import SelectedPictures


def load_data(
    location: str,
    *,
    val_share: float = 0.2,
    test_share: float = 0.0,
    seed: int = 0,
    limit: int | None = None,
    columns: Columns | None = None,
    for_training: bool = True,
) -> Data:
    """Load the training and validation images of a location.

    Args:
        location: a folder with `train/` and `val/` (or `test/`), each with one folder per class; a folder of classes,
            which is split; a CSV or TSV file with columns of files, labels and perhaps the split; or
            `torchvision:NAME`, `torchvision:NAME@FOLDER`.
        val_share: share of every class to hold out if the data has no split, in (0, 1).
        test_share: share of every class for the test part, if the data has no parts, in [0, 1 - val_share).
        seed: of that split and of the choice for `limit`.
        limit: largest number of images of each part; every class keeps its share.
        columns: of a table.
        for_training: False for an evaluation, which needs neither a training part nor two images of a class; without
            them the parts may be empty.

    Raises:
        HalftoneError: the data or `val_share` can't be used; the message names the cause and the fix.
    """
    if not 0 < val_share < 1:
        raise HalftoneError(f"--val-share must lie between 0 and 1, not {val_share}")
    if not 0 <= test_share < 1 - val_share:
        raise HalftoneError(f"--test-share must be 0 or more, and less than 1 with --val-share, not {test_share}")
    columns, shares = columns or Columns(), Shares(val=val_share, test=test_share, seed=seed)
    data = _load(location, shares, columns, for_training=for_training)
    if test_share and data.own_split and for_training:
        raise HalftoneError(
            f"--data {location} has parts, so --test-share divides nothing: omit it, and put pictures that no training "
            "sees into the part test, beside train and val"
        )
    if limit is None:
        return data
    if limit < len(data.train.labels):
        raise HalftoneError(
            f"--limit {limit} is less than one picture for each of the {len(data.train.labels)} classes: raise it"
        )
    return replace(
        data,
        train=_at_most(limit, data.train, seed),
        val=_at_most(limit, data.val, seed),
        test=data.test and _at_most(limit, data.test, seed),
    )


def _load(location: str, shares: Shares, columns: Columns, *, for_training: bool) -> Data:
    path = Path(location).expanduser()
    table = not location.startswith(PREFIX) and path.suffix.lower() in SUFFIXES and not path.is_dir()
    if columns != Columns() and not table:
        raise HalftoneError(f"--data {location} is not a .csv or .tsv file, so it has no columns to name: omit them")
    if location.startswith(PREFIX):
        return load_torchvision(location.removeprefix(PREFIX), shares)
    if table:
        return load_table(path, shares, columns=columns, for_training=for_training)
    return load_folder(path, shares, for_training=for_training)


def _at_most(limit: int, pictures: Pictures, seed: int) -> Pictures:
    if len(pictures) <= limit:
        return pictures
    return SelectedPictures(pictures, stratified_sample(pictures, limit, seed=seed))
