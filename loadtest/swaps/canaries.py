"""Canaries under load: good candidates that the rule promotes, and faulty ones of five kinds that it rolls back."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import cycle
from pathlib import Path
from typing import Any

from loadtest.client.routes import Sample
from loadtest.reporting.figures import Figure
from loadtest.servers.bundles import FAULTY, UNSURE, Bundle
from loadtest.servers.operator import Operator, UnexpectedError
from loadtest.servers.versions import ServingInterval

GOOD = "good"

RATE = 20.0
"""Requests a second meanwhile: the service needs idle time to compare the versions quickly."""

_TRIAL_SECONDS, _POLL_SECONDS = 300.0, 0.1
_FAULTY_SHARE = 0.5


def canary_sequence(canaries: int, bad: int) -> list[str]:
    """Return the candidates in order, `good` or a kind of fault, with the faulty ones evenly spread."""
    kinds = cycle(FAULTY)
    places = {(2 * index + 1) * canaries // (2 * bad): next(kinds) for index in range(bad)}
    return [places.get(place, GOOD) for place in range(canaries)]


@dataclass(frozen=True, kw_only=True)
class Ended:
    """A candidate whose trial is over."""

    kind: str
    version: str
    decision: str
    reason: str
    seconds: float
    """From the end of its loading to the last decision."""


@dataclass
class Canaries:
    """Tries out candidates one after the other.

    Args:
        operator: of the model.
        pristine: folder of the proven bundle.
    """

    operator: Operator
    pristine: Path
    ended: list[Ended] = field(default_factory=list)
    """In order."""

    trials: list[ServingInterval] = field(default_factory=list)
    """Candidates that were rolled back."""

    def try_out(self, kind: str) -> None:
        """Load a candidate and wait for the rule's decision about it.

        Raises:
            UnexpectedError: /admin refuses it, or the rule does not decide in time.
        """
        number = self.operator.next_number()
        bundle = Bundle(self.pristine, self.operator.bundle.folder.parent / f"candidate-{kind}")
        bundle.write(number)
        temperature = bundle.temperature(number)
        if kind != GOOD:
            FAULTY[kind](bundle)
            temperature *= UNSURE if kind == "unsure" else 1
        requested = time.monotonic()
        share = 0.0 if kind == GOOD else _FAULTY_SHARE
        request = {"bundle": bundle.folder.name, "auto": True, "share": share}
        status, state = self.operator.send("POST", "canary", request)
        if status != 200:
            raise UnexpectedError(f"loading a candidate returned {status}: {state}")
        started = time.monotonic()
        version = state["decisions"][-1]["version"]
        last = self._decision(version)
        now = time.monotonic()
        self.ended.append(
            Ended(
                kind=kind,
                version=version,
                decision=last["decision"],
                reason=last["reason"],
                seconds=now - started,
            )
        )
        if last["decision"] == "promoted":
            self.operator.promoted(version, temperature, requested)
        else:
            self.trials.append(
                ServingInterval(
                    version=version, temperature=temperature, requested=requested, confirmed=started, ended=now
                )
            )

    def _decision(self, version: str) -> dict[str, Any]:
        """Return the last decision about a candidate once it is gone."""
        end = time.monotonic() + _TRIAL_SECONDS
        while time.monotonic() < end:
            _, state = self.operator.send("GET", "canary")
            last: dict[str, Any] = state["decisions"][-1]
            if state["candidate"] is None and last["version"] == version:
                return last
            time.sleep(_POLL_SECONDS)
        raise UnexpectedError(f"no decision about a candidate within {_TRIAL_SECONDS:g} s: {state}")

    def figures(self, planned: Sequence[str], samples: Sequence[Sample]) -> list[Figure]:
        """Return how the trials ended, and how many responses of faulty candidates reached a client.

        Args:
            planned: kinds of the candidates.
            samples: of all clients.
        """
        good = [each for each in self.ended if each.kind == GOOD]
        bad = [each for each in self.ended if each.kind != GOOD]
        promoted = sum(each.decision == "promoted" for each in good)
        rolled_back = sum(each.decision == "rolled_back" for each in bad)
        wanted = planned.count(GOOD)
        faulty = {each.version for each in bad}
        return [
            Figure("good canaries promoted by the rule", promoted, str(wanted), promoted == wanted),
            Figure(
                "faulty canaries rolled back by the rule",
                rolled_back,
                str(len(planned) - wanted),
                rolled_back == len(planned) - wanted,
            ),
            *(_longest("promoted after, longest s", good)),
            *(_longest("rolled back after, longest s", bad)),
            *(Figure(f"canary {each.kind}", f"{each.seconds:.1f} s: {each.reason}") for each in bad),
            *(
                Figure("canary good, not promoted", f"{each.decision}: {each.reason}")
                for each in good
                if each.decision != "promoted"
            ),
            Figure("responses of faulty canaries to clients", sum(sample.version in faulty for sample in samples)),
        ]


def _longest(name: str, ended: Sequence[Ended]) -> list[Figure]:
    return [Figure(name, round(max(each.seconds for each in ended), 1))] if ended else []
