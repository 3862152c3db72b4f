"""The operator: writes a bundle, tells the service to load it, and notes who is in charge since when."""

from __future__ import annotations

import http.client
import json
import time
from dataclasses import dataclass, field
from typing import Any

from loadtest.servers.halftone import Server
from loadtest.swaps.bundles import BAD, Bundle
from loadtest.swaps.checks import ServingInterval

LOAD_SECONDS = 300


class UnexpectedError(Exception):
    """The service answered an operator otherwise than it should."""


@dataclass
class Operator:
    """Swaps one model.

    Args:
        server: that serves it.
        token: the admin token.
        bundle: the folder that is written.
    """

    server: Server
    token: str
    bundle: Bundle
    reigns: list[ServingInterval] = field(default_factory=list)
    """Who was in charge, in order."""

    loads: list[tuple[float, float]] = field(default_factory=list)
    """Begin and end of every load, refused ones too, monotonic seconds."""

    _number: int = 0

    def begin(self, answer: dict[str, Any]) -> None:
        """Note the first version from one of its answers."""
        now = time.monotonic()
        first = ServingInterval(version=answer["version"], temperature=self.bundle.temperature(0), begun=now, done=now)
        self.reigns.append(first)

    def load(self) -> None:
        """Put a new version in charge."""
        self._number += 1
        self.bundle.write(self._number)
        begun = time.monotonic()
        status, answer = self._ask("load")
        if status != 200 or any(reign.version == answer["version"] for reign in self.reigns):
            raise UnexpectedError(f"a good bundle was answered {status}: {answer}")
        self.loads.append((begun, time.monotonic()))
        self._reigns(answer["version"], self.bundle.temperature(self._number), begun)

    def roll_back(self) -> None:
        """Put the previous version in charge again."""
        begun = time.monotonic()
        status, answer = self._ask("rollback")
        if status != 200 or answer["version"] != self.reigns[-2].version:
            raise UnexpectedError(f"a rollback was answered {status}: {answer}")
        self._reigns(answer["version"], self.reigns[-2].temperature, begun)

    def fail(self, kind: str) -> None:
        """Try to load a bad bundle, which must be refused."""
        self.bundle.write(self._number + 1)
        BAD[kind](self.bundle)
        begun = time.monotonic()
        status, answer = self._ask("load")
        if status != 422 or answer["error"]["code"] != "bundle_refused":
            raise UnexpectedError(f"a bundle with {kind} was answered {status}: {answer}")
        self.loads.append((begun, time.monotonic()))

    def _reigns(self, version: str, temperature: float, begun: float) -> None:
        self.reigns.append(
            ServingInterval(version=version, temperature=temperature, begun=begun, done=time.monotonic())
        )

    def _ask(self, action: str) -> tuple[int, dict[str, Any]]:
        connection = http.client.HTTPConnection("127.0.0.1", self.server.port, timeout=LOAD_SECONDS)
        path = f"/admin/models/{self.bundle.folder.name}/{action}"
        try:
            connection.request("POST", path, headers={"Authorization": f"Bearer {self.token}"})
            response = connection.getresponse()
            return response.status, json.loads(response.read())
        finally:
            connection.close()
