"""`load_data`: from what the user names with --data to the pictures to learn from and those to judge by."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from models.common.errors import HalftoneError
from training.data.pictures import Data, Pictures
from training.data.sources.csv_table import load_table
from training.data.sources.folder import load_folder
from training.data.sources.torchvision_download import PREFIX
from training.data.sources.torchvision_sets import load_torchvision
from training.data.split import stratified_sample
from training.data.subsets import SelectedPictures

__all__ = ["Data", "Pictures", "load_data"]


def load_data(location: str, *, val_share: float = 0.2, seed: int = 0, limit: int | None = None) -> Data:
    """The labelled pictures at a place.

    Args:
        location: a folder with `train/` and `val/` (or `validation/`, `test/`), each with one folder per class; a
            folder of classes, which is split; a CSV file with the columns `path`, `label` and perhaps `split`; or
            `torchvision:NAME`, `torchvision:NAME@FOLDER`.
        val_share: share of every class that is held out where the data does not say, in (0, 1).
        seed: of that split and of the choice for `limit`.
        limit: most pictures to learn from, and most to judge by; every class keeps its share.

    Raises:
        HalftoneError: the data can't be used; the message says why and what to do.
    """
    if not 0 < val_share < 1:
        raise HalftoneError(f"the share held out for validation must lie between 0 and 1, not {val_share}")
    data = _load(location, val_share=val_share, seed=seed)
    if limit is None:
        return data
    if limit < len(data.train.labels):
        raise HalftoneError(
            f"a limit of {limit} pictures is less than one for each of the {len(data.train.labels)} classes: raise it"
        )
    return replace(data, train=_at_most(limit, data.train, seed), val=_at_most(limit, data.val, seed))


def _load(location: str, *, val_share: float, seed: int) -> Data:
    if location.startswith(PREFIX):
        return load_torchvision(location.removeprefix(PREFIX), val_share=val_share, seed=seed)
    path = Path(location).expanduser()
    if path.suffix.lower() == ".csv" and not path.is_dir():
        return load_table(path, val_share=val_share, seed=seed)
    return load_folder(path, val_share=val_share, seed=seed)


def _at_most(limit: int, pictures: Pictures, seed: int) -> Pictures:
    if len(pictures) <= limit:
        return pictures
    return SelectedPictures(pictures, stratified_sample(pictures, limit, seed=seed))
