"""What happens to a fleet under load: a rolling restart, a kill, a hot swap one by one, and a canary."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack
from dataclasses import dataclass, field

from loadtest.client.routes import Sample
from loadtest.fleet.proxy import Proxy
from loadtest.fleet.replica import Replica

SHARES = {"stable": 9, "canary": 2}
"""Weights of a replica with the old version and of the one with the new version: a tenth of the requests of three."""

Start = Callable[[int], AbstractContextManager[Replica]]
"""Starts the replica with this number."""


@dataclass(frozen=True, kw_only=True)
class Touch:
    """Time during which something happens to a replica."""

    address: str
    begin: float
    end: float

    def concerns(self, sample: Sample) -> bool:
        """Return True if the request was with this replica at that time."""
        return self.address in sample.tried and sample.sent <= self.end and sample.received >= self.begin


@dataclass
class Fleet:
    """Replicas behind a proxy.

    Args: see the fields.
    """

    proxy: Proxy
    start: Start
    stack: ExitStack
    """Stops what `start` has started."""

    replicas: list[Replica]
    """Those that serve, by number."""

    touches: list[Touch] = field(default_factory=list)
    """What happened to which replica."""

    former: list[Replica] = field(default_factory=list)
    """Those that were stopped."""

    def restart(self, seconds: float) -> None:
        """Stop one replica after the other by SIGTERM, and start it again; the proxy learns of it afterwards."""
        for number in range(len(self.replicas)):
            self._replace(number, Replica.stop)
            time.sleep(seconds)

    def kill(self, seconds: float) -> None:
        """Kill the first replica, tell the proxy nothing for some seconds, and start it again."""
        self._replace(0, Replica.kill, seconds)
        time.sleep(seconds)

    def swap(self, seconds: float) -> None:
        """Load a new version into one replica after the other.

        Raises:
            UnexpectedError: a replica refuses it.
        """
        for each in self.replicas:
            with self._touching(each):
                each.operator.load()
            time.sleep(seconds)

    def canary(self, seconds: float) -> None:
        """Give a tenth of the requests to a replica with a new version for some seconds, then take it back.

        Raises:
            UnexpectedError: the replica refuses the version.
        """
        *stable, canary = self.replicas
        self.proxy.send_to({each.address: 1 for each in stable})
        canary.operator.load()
        weights = {each.address: SHARES["stable"] for each in stable} | {canary.address: SHARES["canary"]}
        self.proxy.send_to(weights)
        time.sleep(seconds)
        self.proxy.send_to({each.address: 1 for each in stable})
        canary.operator.roll_back()
        self._balance()

    def _replace(self, number: int, end: Callable[[Replica], None], seconds: float = 0.0) -> None:
        old = self.replicas[number]
        with self._touching(old):
            end(old)
            time.sleep(seconds)
            self.former.append(old)
            self.replicas[number] = self.stack.enter_context(self.start(number))
            self._balance()

    def _balance(self) -> None:
        self.proxy.send_to({each.address: 1 for each in self.replicas})

    @contextlib.contextmanager
    def _touching(self, replica: Replica) -> Iterator[None]:
        begin = time.monotonic()
        yield
        self.touches.append(Touch(address=replica.address, begin=begin, end=time.monotonic()))

    def others(self, samples: Sequence[Sample]) -> list[Sample]:
        """Return the requests to replicas to which nothing happened at that time."""
        return [each for each in samples if not any(touch.concerns(each) for touch in self.touches)]
