"""Requests during each phase: how many are lost or name a wrong version, and how slow those of the others are."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import replace

from loadtest.client.load import percentile
from loadtest.client.routes import Clients, Route, Sample
from loadtest.fleet.phases import SHARES, Fleet
from loadtest.reporting.figures import Figure
from loadtest.servers.operator import UnexpectedError
from loadtest.servers.versions import count_wrong

CLIENTS = 32
SLOWER = 2.0


class Measurement:
    """Requests during each phase, and the figures of them.

    Args:
        fleet: answers the requests.
        routes: used in turn.
        rate: requests a second.
    """

    def __init__(self, fleet: Fleet, routes: list[Route], rate: float) -> None:
        self._fleet, self._routes, self._rate = fleet, routes, rate
        self._quiet_ms = 0.0
        self._last: list[Sample] = []

    def phase(self, name: str, action: Callable[[], None]) -> list[Figure]:
        """Carry out an action under load and return its figures; the first one is that of the quiet fleet."""
        problem = ""
        with Clients(self._fleet.proxy.port, self._routes, CLIENTS, rate=self._rate) as clients:
            try:
                action()
            except UnexpectedError as error:
                problem = str(error)
        self._last = clients.samples
        lost = [each.problem for each in self._last if each.problem]
        wrong = self._wrong()
        return [
            Figure(f"{name}: accepted requests", len(self._last)),
            Figure(f"{name}: lost", len(lost), "0", bool(self._last) and not lost),
            *(Figure(f"{name}: lost with", f"{what} ({count} times)") for what, count in Counter(lost).most_common(3)),
            *([Figure(f"{name}: wrong response of /admin", problem, "none", False)] if problem else []),
            Figure(f"{name}: sent to a second replica", sum(len(each.tried) > 1 for each in self._last)),
            Figure(f"{name}: versions seen", len({each.version for each in self._last if not each.problem})),
            Figure(f"{name}: versions named wrongly", wrong, "0", not wrong),
            *self._latency(name),
        ]

    def canary_share(self) -> list[Figure]:
        """Return the share of the new version while both were served: the last phase was the canary."""
        newest = self._fleet.replicas[-1].operator.intervals[-2]
        samples = [each for each in self._last if each.sent >= newest.confirmed]
        canary = [each for each in samples if each.version == newest.version]
        until = max((each.sent for each in canary), default=newest.confirmed)
        share = len(canary) / max(1, sum(each.sent <= until for each in samples))
        wanted = SHARES["canary"] / (SHARES["canary"] + (len(self._fleet.replicas) - 1) * SHARES["stable"])
        # An idle canary is the next one whenever all others are busy, so it gets somewhat more than its weight.
        goal = f"{wanted / 2:.0%} to {2 * wanted:.0%}"
        return [Figure("canary: share of the new version", f"{share:.1%}", goal, wanted / 2 <= share <= 2 * wanted)]

    def _wrong(self) -> int:
        """Count responses of a version that the replica didn't serve at that time, or that named a wrong one."""
        good = [each for each in self._last if not each.problem]
        known = {each.address: each.operator.intervals for each in (*self._fleet.former, *self._fleet.replicas)}
        counts = [
            sum(count_wrong([each for each in good if each.tried[-1:] == (address,)], intervals))
            for address, intervals in known.items()
        ]
        return sum(counts) + sum(not {*each.tried[-1:]} & known.keys() for each in good)

    def _latency(self, name: str) -> list[Figure]:
        others = [each.latency_ms for each in self._fleet.others(self._last) if not each.problem]
        if not others:
            return []
        p99 = percentile(others, 99)
        shown = Figure(f"{name}: p99 ms of the others", round(p99, 1))
        if not self._quiet_ms:
            self._quiet_ms = p99
            return [replace(shown, name=f"{name}: p99 ms")]
        ratio = p99 / self._quiet_ms
        return [
            shown,
            Figure(f"{name}: p99 of the others, by the quiet one", round(ratio, 2), f"≤ {SLOWER:g}", ratio <= SLOWER),
        ]
