"""What a model learnt from, kept with its bundle, so that nobody judges it by the same pictures unawares.

The file holds a hash of every training picture's content: names would not do, since `train/cat/1.png` and
`val/cat/1.png` are two pictures, and a renamed picture is the same as before.
"""

# MERGED-DOC """Which pictures are fair to judge trained bundles by."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
from rich.console import Console
from rich.progress import track

from models.bundle.bundle import Bundle
from models.common.errors import HalftoneError
from models.common.host import cores
from models.preprocess.decode import ImageError
from training.data.load import load_data
from training.data.pictures import Data, Pictures
from training.data.subsets import JoinedPictures, RelabelledPictures, SelectedPictures

FILE = "training_pictures.bin"

Digests = npt.NDArray[np.uint64]

# Few enough futures for millions of pictures, and enough for a smooth bar.
TOGETHER = 256


def digests(pictures: Pictures) -> Digests:
    """uint64 (N,): every picture's hash by `Pictures.digest`; 0 for a picture that can't be read.

    Reads every file once, without decoding it.
    """
    starts = range(0, len(pictures), TOGETHER)
    found = np.zeros(len(pictures), dtype=np.uint64)
    with ThreadPoolExecutor(cores()) as pool:
        parts = pool.map(lambda start: _some(pictures, start), starts)
        what = "hashing the pictures"
        for start, part in track(
            zip(starts, parts, strict=True), what, len(starts), console=Console(stderr=True), transient=True
        ):
            found[start : start + len(part)] = part
    return found


def record(pictures: Pictures) -> bytes:
    """The content of the bundle's file: the sorted hashes of the training pictures, 8 bytes each, little-endian."""
    found = np.unique(digests(pictures))
    return found[found > 0].astype("<u8").tobytes()


def learnt_by(bundle: Bundle) -> Digests | None:
    """The hashes of what the bundle's weights learnt from, ascending; None where that is not recorded.

    Raises:
        BundleError: the file is listed, but is not what was written.
    """
    if not bundle.has(FILE):
        return None
    return np.frombuffer(bundle.read(FILE), dtype="<u8").astype(np.uint64)


def _some(pictures: Pictures, start: int) -> list[int]:
    return [_digest(pictures, index) for index in range(start, min(start + TOGETHER, len(pictures)))]


def _digest(pictures: Pictures, index: int) -> int:
    try:
        return int.from_bytes(pictures.digest(index), "little")
    except ImageError:
        return 0


Part = Literal["auto", "val", "all"]


@dataclass(frozen=True, kw_only=True)
class Choice:
    """The pictures that models are judged by."""

    pictures: Pictures
    """With the classes of the first bundle."""

    what: str
    """In words, which they are."""

    learnt: int = 0
    """Pictures that were left out because one of the models has learnt them."""


def choose_pictures(location: str, part: Part, bundles: Sequence[Bundle]) -> Choice:
    """The pictures to judge by.

    On the data that a model was trained on, it is judged by the pictures that were held out then. On other data, the
    pictures that one of the models is known to have learnt are left out, unless all pictures are asked for.

    Args:
        location: as for `load_data`.
        part: the held-out pictures, all of them, or what is fair.
        bundles: the models, which know the same classes.

    Raises:
        HalftoneError: the data can't be used, has classes that the models do not know, two models were trained on
            different splits of it, or every picture was learnt.
    """
    choice = _choose(location, part, bundles)
    return replace(choice, pictures=_relabelled(choice.pictures, bundles[0]))


def _choose(location: str, part: Part, bundles: Sequence[Bundle]) -> Choice:
    if part == "all":
        data = load_data(location)
        return Choice(pictures=JoinedPictures(data.train, data.val), what="all pictures")
    trained = [(bundle, _as_trained(location, bundle)) for bundle in bundles]
    own = [data for _, data in trained if data is not None]
    if len({data.val.fingerprint() for data in own}) > 1:
        raise HalftoneError(
            "these models were trained on different splits of this data, so that each has learnt what another is "
            "judged by: train them with the same --seed and --val-share, or put the held-out pictures into val/"
        )
    others = [bundle for bundle, data in trained if data is None]
    if own:
        choice = Choice(pictures=own[0].val, what="the pictures that training held out")
    else:
        choice = _of_other_data(location, part, bundles)
    return _without_learnt(choice, others, location)


def _of_other_data(location: str, part: Part, bundles: Sequence[Bundle]) -> Choice:
    """What is fair as far as the data and the split of the first trained model tell."""
    splits = [settings for bundle in bundles if (settings := _settings(bundle, "val_share", "seed"))]
    data = load_data(location, **(splits[0] if splits else {}))
    if data.own_split or part == "val":
        return Choice(pictures=data.val, what="the held-out part of the data")
    if any(_settings(bundle, "val_share") and learnt_by(bundle) is None for bundle in bundles):
        # It may well have learnt from most of this data: what the same split holds out is the best guess.
        return Choice(pictures=data.val, what="the part that the model's --val-share and --seed hold out")
    return Choice(pictures=JoinedPictures(data.train, data.val), what="all pictures")


def _without_learnt(choice: Choice, bundles: Sequence[Bundle], location: str) -> Choice:
    """Leave out what these models are known to have learnt, and say for which of them that is not known."""
    known = {bundle.manifest.name: learnt_by(bundle) for bundle in bundles}
    what = choice.what
    if recorded := [found for found in known.values() if found is not None]:
        fresh = ~np.isin(digests(choice.pictures), np.concatenate(recorded))
        learnt = int((~fresh).sum())
        if not fresh.any():
            raise HalftoneError(
                f"the models have learnt every picture of --data {location} that they could be judged by: name "
                "pictures that they were not trained on, or ask for all of them with --part all"
            )
        choice = replace(choice, pictures=SelectedPictures(choice.pictures, np.flatnonzero(fresh)), learnt=learnt)
        what += f", without {learnt:,} that were learnt" if learnt else ", none of which was learnt"
    unknown = [name for name, found in known.items() if found is None]
    if unknown:
        what += f" (what {' and '.join(unknown)} learnt from is not recorded)"
    return replace(choice, what=what)


def _settings(bundle: Bundle, *names: str) -> dict[str, Any]:
    """Those of the settings that the bundle was trained with."""
    settings = bundle.manifest.training.get("config", {})
    return {name: settings[name] for name in names if name in settings}


def _as_trained(location: str, bundle: Bundle) -> Data | None:
    """The data with the split that the bundle was trained with; None if it was trained on other data."""
    fingerprint = bundle.manifest.training.get("data", {}).get("fingerprint")
    if fingerprint is None:
        return None
    try:
        data = load_data(location, **_settings(bundle, "val_share", "seed", "limit"))
    except HalftoneError:
        # That training's --limit may not suit this data; whatever else is wrong shows when it is loaded without.
        return None
    return data if data.fingerprint() == fingerprint else None


def _relabelled(pictures: Pictures, bundle: Bundle) -> Pictures:
    manifest = bundle.manifest
    places = {name: place for names in (manifest.label_ids, manifest.labels) for place, name in enumerate(names)}
    unknown = [label for label in pictures.labels if label not in places]
    if unknown:
        some = ", ".join(manifest.labels[:5]) + (", …" if len(manifest.labels) > 5 else "")
        raise HalftoneError(
            f"the data has the class {unknown[0]!r}, which {manifest.name} does not know: name the classes as the "
            f"model does ({some})"
        )
    index = np.array([places[label] for label in pictures.labels], dtype=np.int64)
    return RelabelledPictures(pictures, labels=manifest.labels, index=index)


def check_same_classes(bundles: Sequence[Bundle]) -> None:
    """Raises HalftoneError where two bundles do not know the same classes, in whatever order."""
    first = bundles[0].manifest
    for other in bundles[1:]:
        if set(other.manifest.labels) != set(first.labels):
            raise HalftoneError(
                f"{first.name} and {other.manifest.name} know different classes, so their answers can't be averaged: "
                "evaluate them one by one"
            )
