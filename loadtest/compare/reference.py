"""The right answers: what our service says with its reference variant, or a file that says so."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from loadtest.client.encoding import request
from loadtest.reporting.cli import CompareError
from loadtest.servers.catalogue import ours
from loadtest.servers.process import ask, running

DECIDED = 0.05


@dataclass(frozen=True, kw_only=True)
class Reference:
    """Right answers, and where they come from."""

    labels: Mapping[str, int]
    """Picture's file name to class index."""

    origin: str
    undecided: tuple[str, ...] = ()
    """Pictures set aside because the two best classes are nearly as probable: any rounding may flip them."""


def from_file(path: Path) -> Reference:
    """Read `{"NAME.jpg": class index, …}`.

    Raises:
        CompareError: the file can't be read as that.
    """
    try:
        labels = {str(name): int(index) for name, index in json.loads(path.read_text()).items()}
    except (OSError, ValueError, TypeError, AttributeError) as error:
        raise CompareError(
            f'--labels {path}: {error}: give a JSON file such as {{"cat-00.jpg": 281}} for the prepared pictures'
        ) from None
    return Reference(labels=labels, origin=f"the file {path.name}")


def from_service(pictures: Mapping[str, bytes], variant: str) -> Reference:
    """Ask our service, started with that variant.

    Raises:
        PeerError: it can't be started or doesn't answer.
    """
    answers = answers_of_service(pictures, variant)
    best = {name: answer["predictions"] for name, answer in answers.items()}
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


def answers_of_service(pictures: Mapping[str, bytes], variant: str = "") -> dict[str, dict[str, Any]]:
    """What our service answers to each picture; without a variant, with the one that it chooses itself.

    Raises:
        PeerError: it can't be started or doesn't answer.
    """
    service = ours(HALFTONE_VARIANT=variant) if variant else ours()
    first = next(iter(pictures.values()))
    with running(service, Path(sys.executable), first, variant) as server:
        return {
            name: json.loads(ask(server, request(service.wire, service.path, picture, server.port)))
            for name, picture in pictures.items()
        }
