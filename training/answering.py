"""What trained bundles answer on labelled pictures: which pictures are fair to ask about, and the probabilities."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import numpy as np
import numpy.typing as npt
import torch
from rich.progress import Progress

from models.bundle import Bundle
from models.checkpoint import load_module
from models.errors import HalftoneError
from models.graph import ServingGraph
from models.measures import Probabilities, softmax
from training.augment import EvaluationView
from training.data.dataset import PictureSet
from training.data.pictures import Data, Pictures
from training.data.source import load_data
from training.data.views import JoinedPictures, RelabelledPictures
from training.feed import ValidationFeed

Part = Literal["auto", "val", "all"]


def choose_pictures(location: str, part: Part, bundles: Sequence[Bundle]) -> tuple[Pictures, str]:
    """The pictures to judge by, with the classes of the first bundle, and in words which they are.

    A model that was trained on data without a held-out part is judged by the pictures that were held out then.

    Args:
        location: as for `load_data`.
        part: the held-out pictures, all of them, or what is fair.
        bundles: the models, which know the same classes.

    Raises:
        HalftoneError: the data can't be used, has classes that the models do not know, or two models were trained on
            different splits of it.
    """
    pictures, what = _choose(location, part, bundles)
    return _relabelled(pictures, bundles[0]), what


def _choose(location: str, part: Part, bundles: Sequence[Bundle]) -> tuple[Pictures, str]:
    if part == "all":
        data = load_data(location)
        return JoinedPictures(data.train, data.val), "all pictures"
    own = [data for data in (_as_trained(location, bundle) for bundle in bundles) if data is not None]
    if len({data.val.fingerprint() for data in own}) > 1:
        raise HalftoneError(
            "these models were trained on different splits of this data, so that each has learnt what another is "
            "judged by: train them with the same --seed and --val-share, or put the held-out pictures into val/"
        )
    if own:
        return own[0].val, "the pictures that training held out"
    data = load_data(location)
    if data.own_split or part == "val":
        return data.val, "the held-out part of the data"
    return JoinedPictures(data.train, data.val), "all pictures, which the models were not trained on"


def _as_trained(location: str, bundle: Bundle) -> Data | None:
    """The data with the split that the bundle was trained with; None if it was trained on other data."""
    training = bundle.manifest.training
    fingerprint, settings = training.get("data", {}).get("fingerprint"), training.get("config", {})
    if fingerprint is None:
        return None
    known = {name: settings[name] for name in ("val_share", "seed", "limit") if name in settings}
    try:
        data = load_data(location, **known)
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


@torch.inference_mode()
def probabilities(
    bundle: Bundle,
    pictures: Pictures,
    *,
    batch: int,
    workers: int,
    device: torch.device,
    max_corrupt_share: float,
    progress: Progress,
) -> tuple[Probabilities, npt.NDArray[np.bool_]]:
    """The model's calibrated answers.

    Args:
        bundle: the model; it must know the classes of `pictures`.
        pictures: what to ask about.
        batch: pictures per forward pass.
        workers: processes that read them.
        device: where to run.
        max_corrupt_share: share of unreadable pictures that is put up with.
        progress: where to show how far it is.

    Returns:
        float64 (N, C) with columns in the order of `pictures.labels`, and bool (N,): whether the picture could be read;
        rows of the others mean nothing.

    Raises:
        CorruptDataError: too many pictures can't be read.
    """
    manifest = bundle.manifest
    graph = ServingGraph(load_module(bundle), manifest.input).eval().to(device)
    seen = PictureSet(pictures, EvaluationView(manifest.input), seed=0, max_corrupt_share=max_corrupt_share)
    task = progress.add_task(manifest.name, total=len(pictures))
    logits = []
    for pixels, _ in ValidationFeed(seen, batch=batch, workers=workers, pin=device.type == "cuda"):
        logits.append(graph(pixels.to(device)).cpu().numpy())
        progress.advance(task, len(pixels))
    readable = np.ones(len(pictures), dtype=bool)
    readable[seen.broken().numpy()] = False
    order = [manifest.labels.index(label) for label in pictures.labels]
    return softmax(np.concatenate(logits)[:, order], manifest.temperature), readable
