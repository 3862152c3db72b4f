"""Right classes of the images: predictions of our service's reference variant, or a file of labels."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from loadtest.reporting.cli import CompareError
from loadtest.servers.catalogue import ours
from loadtest.servers.peer import running

DECIDED = 0.05


@dataclass(frozen=True, kw_only=True)
class Reference:
    """Right class of each image, and its origin."""

    labels: Mapping[str, int]
    """Picture's file name to class index."""

    origin: str
    undecided: tuple[str, ...] = ()
    """Images left out because their two best classes are nearly as probable: rounding may swap them."""


def from_file(path: Path) -> Reference:
    """Read `{"NAME.jpg": class index, …}`.

    Raises:
        CompareError: the file has another content or can't be read.
    """
    try:
        labels = {str(name): int(index) for name, index in json.loads(path.read_text()).items()}
    except (OSError, ValueError, TypeError, AttributeError) as error:
        raise CompareError(
            f'--labels {path}: {error}: give a JSON file such as {{"cat-00.jpg": 281}} for the prepared pictures'
        ) from None
    return Reference(labels=labels, origin=f"the file {path.name}")


def from_service(pictures: Mapping[str, bytes], variant: str) -> Reference:
    """Return the predictions of our service, started with `variant`.

    Raises:
        PeerError: the service can't be started or doesn't respond.
    """
    responses = service_responses(pictures, variant)
    best = {name: response["predictions"] for name, response in responses.items()}
    decided = {
        name: predictions
        for name, predictions in best.items()
        if len(predictions) < 2 or predictions[0]["probability"] - predictions[1]["probability"] > DECIDED
    }
    return Reference(
        labels={name: int(predictions[0]["index"]) for name, predictions in decided.items()},
        origin=f"our service with {variant}",
        undecided=tuple(sorted(set(best) - set(decided))),
    )


def service_responses(pictures: Mapping[str, bytes], variant: str = "") -> dict[str, dict[str, Any]]:
    """Return our service's response to each image; empty `variant`: the service chooses one.

    Raises:
        PeerError: the service can't be started or doesn't respond.
    """
    service = ours(HALFTONE_VARIANT=variant) if variant else ours()
    first = next(iter(pictures.values()))
    with running(service, Path(sys.executable), first, variant) as server:
        return {name: json.loads(server.classify(picture)) for name, picture in pictures.items()}
