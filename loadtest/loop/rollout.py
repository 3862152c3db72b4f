"""Roll-out of the new bundle as a canary: shadow, some of the requests, then all, as the service's rule decides."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import cycle
from typing import Any

from loadtest.loop.client import Answer, admin, classify
from loadtest.loop.pictures import Picture
from loadtest.reporting.cli import PeerError

MIN_AGREEMENT = 0.5
"""The new model is meant to answer otherwise on the pictures that the old one fails on."""

LONGEST_SECONDS = 900
PAUSE_SECONDS = 0.02
"""Between requests: the service compares the two models in idle time."""

LOOK_EVERY = 20
"""Requests between two looks at the state of the canary."""


@dataclass(frozen=True, kw_only=True)
class RollOut:
    """What became of the canary."""

    decisions: list[dict[str, Any]]
    """Of the service's log, the oldest first."""

    requests: int
    """Sent meanwhile."""

    unanswered: int
    """Requests without an answer."""

    versions: dict[str, int]
    """Answers by version."""

    seconds: float

    @property
    def promoted(self) -> bool:
        """True if the rule promoted the new model."""
        last = self.decisions[-1] if self.decisions else {}
        return last.get("decision") == "promoted" and last.get("by") == "rule"


def roll_out(port: int, token: str, model: str, bundle: str, pictures: Sequence[Picture]) -> RollOut:
    """Load a bundle as the canary of a model, and send pictures until the service has decided.

    Raises:
        PeerError: the service refuses the canary, or has not decided in `LONGEST_SECONDS`.
    """
    start = time.monotonic()
    body = {"bundle": bundle, "auto": True, "min_agreement": MIN_AGREEMENT}
    admin(port, token, "POST", model, "canary", body)
    versions: dict[str, int] = {}
    requests = unanswered = 0
    for answers in _rounds(port, pictures):
        for answer in answers:
            requests += 1
            if answer is None:
                unanswered += 1
            else:
                versions[answer.version] = versions.get(answer.version, 0) + 1
            time.sleep(PAUSE_SECONDS)
        state = admin(port, token, "GET", model, "canary")
        if state["candidate"] is None:
            break
        if time.monotonic() - start > LONGEST_SECONDS:
            raise PeerError(f"the canary is undecided after {LONGEST_SECONDS} s: {state['candidate']['criteria']}")
    return RollOut(
        decisions=state["decisions"],
        requests=requests,
        unanswered=unanswered,
        versions=versions,
        seconds=time.monotonic() - start,
    )


def _rounds(port: int, pictures: Sequence[Picture]) -> Iterator[Iterator[Answer | None]]:
    endless = cycle(pictures)
    while True:
        yield classify(port, [next(endless) for _ in range(LOOK_EVERY)])
