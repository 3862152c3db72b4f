"""Data leakage: hashes of the training images, stored in the bundle, so that evaluation can exclude those images.

The file holds a hash of every training image's content. Names don't identify an image: `train/cat/1.png` and
`val/cat/1.png` are two images, and a renamed image is still the same.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np

from models.bundle.bundle import WEIGHTS, Bundle
from models.common.errors import HalftoneError
from models.dataset import training_digests
from training.config.columns import Columns
from training.data.check.duplicates import digests
from training.data.load import load_data
from training.data.pictures import Data, Pictures
from training.data.subsets import JoinedPictures, RelabelledPictures, SelectedPictures

Part = Literal["auto", "val", "test", "all"]

CHOSEN_HERE = (
    "these pictures chose the epoch and the temperature, so the figures are a little too good: for honest ones, name "
    "pictures that took no part in training with --data, or --part test if the data has one"
)


def encoded_digests(pictures: Pictures) -> bytes:
    """Return the content of the bundle's file: the sorted hashes of the images, 8 bytes each, little-endian."""
    hashes = np.unique(digests(pictures))
    return hashes[hashes > 0].astype("<u8").tobytes()


@dataclass(frozen=True, kw_only=True)
class Choice:
    """Images to evaluate models on."""

    pictures: Pictures
    """With the classes of the first bundle."""

    description: str
    """The choice in words."""

    excluded: int = 0
    """Number of images left out because a model was trained on them."""

    chose_the_epoch: bool = False
    """True if the training of a model chose its epoch and temperature by these images."""

    warnings: tuple[str, ...] = ()
    """For the user."""


def choose_pictures(location: str, part: Part, bundles: Sequence[Bundle], columns: Columns) -> Choice:
    """Choose the images to evaluate on.

    A model is evaluated on the images that its training held out, if it was trained on this very data. On other data,
    the known training images of every model are excluded, unless `part` is `all`.

    Args:
        location: as for `load_data`.
        part: the held-out images, those that training left alone, all images, or `auto`.
        bundles: the models, which have the same classes.
        columns: of a table; None in all of them for those of the models' training.

    Raises:
        HalftoneError: the data can't be used, has classes that the models don't have, two models were trained on
            different splits of it, or every image is a training image.
    """
    choice = _choose(location, part, bundles, columns)
    return replace(choice, pictures=_relabelled(choice.pictures, bundles[0]))


def _choose(location: str, part: Part, bundles: Sequence[Bundle], columns: Columns) -> Choice:
    if columns == Columns():
        columns = next((chosen for bundle in bundles if (chosen := _columns(bundle)) != columns), columns)
    if part == "all":
        data = load_data(location, columns=columns, for_training=False)
        choice = Choice(pictures=_all(data), description="all pictures", warnings=data.warnings)
        return _with_training_images(choice, bundles)
    if part == "test":
        data = _load_as_split_by(bundles, location, columns)
        return _without_training_images(_test(data, location), bundles, location)
    trained = [(bundle, _as_trained(location, bundle, columns)) for bundle in bundles]
    own = [data for _, data in trained if data is not None]
    if len({data.val.fingerprint() for data in own}) > 1:
        raise HalftoneError(
            "these models were trained on different splits of this data, so validation pictures of one are training "
            "pictures of another: train them with the same --seed and --val-share, or put the held-out pictures into "
            "val/"
        )
    others = [bundle for bundle, data in trained if data is None]
    if own:
        description = "the pictures that training held out, and that chose its epoch and temperature"
        warnings = (*own[0].warnings, CHOSEN_HERE)
        choice = Choice(pictures=own[0].val, description=description, chose_the_epoch=True, warnings=warnings)
    else:
        choice = _choose_other_data(location, part, bundles, columns)
    return _without_training_images(choice, others, location)


def _choose_other_data(location: str, part: Part, bundles: Sequence[Bundle], columns: Columns) -> Choice:
    """Choose by the split of the data, or by the split settings of the first trained model."""
    data = _load_as_split_by(bundles, location, columns)
    if part == "val" and not len(data.val):
        raise HalftoneError(
            f"--data {location} has no validation part, and can't be split into one: omit --part val to evaluate on "
            "the pictures that are there"
        )
    if data.own_split and not len(data.val):
        return _test(data, location)
    choice = Choice(pictures=data.val, description="the held-out part of the data", warnings=data.warnings)
    if data.own_split or part == "val":
        return choice
    if len(data.val) and any(_settings(bundle, "val_share") and training_digests(bundle) is None for bundle in bundles):
        # The model may have been trained on most of this data: the part held out by the same split is the best guess.
        return replace(choice, description="the part that the model's --val-share and --seed hold out")
    return replace(choice, pictures=_all(data), description="all pictures")


def _load_as_split_by(bundles: Sequence[Bundle], location: str, columns: Columns) -> Data:
    """Load data; what has no parts is divided as for the first trained model."""
    splits = [settings for bundle in bundles if (settings := _settings(bundle, "val_share", "test_share", "seed"))]
    return load_data(location, columns=columns, for_training=False, **(splits[0] if splits else {}))


def _all(data: Data) -> Pictures:
    both = JoinedPictures(data.train, data.val)
    return both if data.test is None else JoinedPictures(both, data.test)


def _test(data: Data, location: str) -> Choice:
    if data.test is None:
        raise HalftoneError(
            f"--data {location} has no test part beside its training and validation parts, or one of other classes: "
            "omit --part test, or name the folder of those pictures with --data"
        )
    return Choice(pictures=data.test, description="the part test of the data")


def _without_training_images(choice: Choice, bundles: Sequence[Bundle], location: str) -> Choice:
    """Exclude the known training images of these models, and name the models without a record of them."""
    by_model = {bundle.manifest.name: training_digests(bundle) for bundle in bundles}
    description = choice.description
    if recorded := [hashes for hashes in by_model.values() if hashes is not None]:
        unseen = ~np.isin(digests(choice.pictures), np.concatenate(recorded))
        excluded = int((~unseen).sum())
        if not unseen.any():
            raise HalftoneError(
                f"the models were trained on every picture of --data {location} that they could be evaluated on: name "
                "other pictures, or evaluate on all of them with --part all"
            )
        pictures = SelectedPictures(choice.pictures, np.flatnonzero(unseen))
        choice = replace(choice, pictures=pictures, excluded=excluded)
        description += f", without {excluded:,} training pictures" if excluded else ", no training pictures among them"
    return replace(choice, description=description + _unrecorded(bundles))


def _with_training_images(choice: Choice, bundles: Sequence[Bundle]) -> Choice:
    """Keep the known training images of these models, but say how many of the images they are."""
    recorded = {bundle.manifest.name: hashes for bundle in bundles if (hashes := training_digests(bundle)) is not None}
    if not recorded:
        return replace(choice, description=choice.description + _unrecorded(bundles))
    found, total = digests(choice.pictures), len(choice.pictures)
    seen = np.isin(found, np.concatenate(list(recorded.values())))
    among = f"{int(seen.sum()):,} training pictures" if seen.any() else "no training pictures"
    fix = "name other pictures with --data" if seen.all() else "omit --part all to leave them out"
    by_model = {name: int(np.isin(found, hashes).sum()) for name, hashes in recorded.items()}
    warnings = tuple(
        f"{count:,} of the {total:,} pictures are among those that {name} was trained on, so its figures flatter it: "
        f"{fix}"
        for name, count in by_model.items()
        if count
    )
    return replace(
        choice,
        description=f"{choice.description}, {among} among them{_unrecorded(bundles)}",
        warnings=(*choice.warnings, *warnings),
    )


def _unrecorded(bundles: Sequence[Bundle]) -> str:
    """Return a remark on the models without a record of their training images; empty if all have one."""
    names = [bundle.manifest.name for bundle in bundles if training_digests(bundle) is None]
    return f" (the training pictures of {' and '.join(names)} are not recorded)" if names else ""


def _settings(bundle: Bundle, *names: str) -> dict[str, Any]:
    """Return those of the named settings that the bundle's training has recorded."""
    settings = bundle.manifest.training.get("config", {})
    return {name: settings[name] for name in names if name in settings}


def _columns(bundle: Bundle) -> Columns:
    return Columns(**_settings(bundle, "table").get("table", {}))


def _as_trained(location: str, bundle: Bundle, columns: Columns) -> Data | None:
    """Return the data with the split of the bundle's training; None if the bundle was trained on other data."""
    fingerprint = bundle.manifest.training.get("data", {}).get("fingerprint")
    if fingerprint is None:
        return None
    try:
        data = load_data(location, columns=columns, **_settings(bundle, "val_share", "test_share", "seed", "limit"))
    except HalftoneError:
        # The --limit of that training may not suit this data; other errors recur when it is loaded without a limit.
        return None
    return data if data.fingerprint() == fingerprint else None


def _relabelled(pictures: Pictures, bundle: Bundle) -> Pictures:
    manifest = bundle.manifest
    places = {name: place for names in (manifest.label_ids, manifest.labels) for place, name in enumerate(names)}
    unknown = [label for label in pictures.labels if label not in places]
    if unknown:
        some = ", ".join(manifest.labels[:5]) + (", …" if len(manifest.labels) > 5 else "")
        raise HalftoneError(
            f"the data has the class {unknown[0]!r}, which {manifest.name} does not have: use the model's names for "
            f"the classes ({some})"
        )
    index = np.array([places[label] for label in pictures.labels], dtype=np.int64)
    return RelabelledPictures(pictures, labels=manifest.labels, index=index)


def with_classes_of(data: Data, bundle: Bundle) -> Data:
    """Return the data with the classes of a model in its order, for training that goes on from the model.

    Raises:
        HalftoneError: the data has other classes than the model, or none of the training images of one.
    """
    manifest, labels = bundle.manifest, data.train.labels
    if labels == manifest.labels:
        return data
    if set(labels) not in (set(manifest.labels), set(manifest.label_ids)):
        other = sorted(set(labels) ^ set(manifest.labels))
        raise HalftoneError(
            f"--from {bundle.name} can't go on with the data, whose classes differ, such as {other[0]!r}: use the "
            f"model's names, or begin with a new head: --model {manifest.architecture} --weights "
            f"{bundle.folder / WEIGHTS} instead of --from"
        )
    return replace(
        data,
        train=_relabelled(data.train, bundle),
        val=_relabelled(data.val, bundle),
        test=data.test and _relabelled(data.test, bundle),
    )


def check_same_classes(bundles: Sequence[Bundle]) -> None:
    """Raise HalftoneError if the sets of classes of two bundles differ; their order may."""
    first = bundles[0].manifest
    for other in bundles[1:]:
        if set(other.manifest.labels) != set(first.labels):
            raise HalftoneError(
                f"{first.name} and {other.manifest.name} have different classes, so their predictions can't be "
                "averaged: evaluate them separately"
            )
