"""Operator of the service: writes a bundle, loads it through /admin, and records the active versions."""

from __future__ import annotations

import json
import time
from dataclasses import dataclass, field
from typing import Any

from loadtest.client.blocking import fetch
from loadtest.client.http1 import encode_request
from loadtest.servers.bundles import BAD, Bundle
from loadtest.servers.halftone import Server
from loadtest.servers.versions import ServingInterval

LOAD_SECONDS = 300


class UnexpectedError(Exception):
    """Raised for a wrong response of /admin."""


@dataclass
class Operator:
    """Swaps the versions of one model.

    Args:
        server: serves the model.
        token: the admin token.
        bundle: bundle to write before each load.
    """

    server: Server
    token: str
    bundle: Bundle
    intervals: list[ServingInterval] = field(default_factory=list)
    """Active versions, in order."""

    loads: list[tuple[float, float]] = field(default_factory=list)
    """Start and end of every load, including refused ones, as monotonic seconds."""

    _number: int = 0

    def record_first(self, version: str) -> None:
        """Record the version that is active at the start."""
        self._record(version, self.bundle.temperature(0), time.monotonic())

    def load(self) -> None:
        """Load a new version and check that it is active."""
        number = self.next_number()
        self.bundle.write(number)
        requested = time.monotonic()
        status, body = self.send("POST", "load")
        if status != 200 or any(each.version == body["version"] for each in self.intervals):
            raise UnexpectedError(f"loading a valid bundle returned {status}: {body}")
        self.loads.append((requested, time.monotonic()))
        self._record(body["version"], self.bundle.temperature(number), requested)

    def roll_back(self) -> None:
        """Activate the previous version again."""
        requested = time.monotonic()
        status, body = self.send("POST", "rollback")
        if status != 200 or body["version"] != self.intervals[-2].version:
            raise UnexpectedError(f"a rollback returned {status}: {body}")
        self._record(body["version"], self.intervals[-2].temperature, requested)

    def load_invalid(self, kind: str) -> None:
        """Try to load an invalid bundle and check that the service refuses it."""
        self.bundle.write(self._number + 1)
        BAD[kind](self.bundle)
        requested = time.monotonic()
        status, body = self.send("POST", "load")
        if status != 422 or body["error"]["code"] != "bundle_refused":
            raise UnexpectedError(f"loading a bundle with {kind} returned {status}: {body}")
        self.loads.append((requested, time.monotonic()))

    def _record(self, version: str, temperature: float, requested: float) -> None:
        self.intervals.append(
            ServingInterval(version=version, temperature=temperature, requested=requested, confirmed=time.monotonic())
        )

    def next_number(self) -> int:
        """Return the number of a version that no bundle has had yet."""
        self._number += 1
        return self._number

    def promoted(self, version: str, temperature: float, requested: float) -> None:
        """Record that a candidate, which may have answered since `requested`, is active now."""
        self._record(version, temperature, requested)

    def send(self, method: str, action: str, body: dict[str, Any] | None = None) -> tuple[int, dict[str, Any]]:
        """Send a request about the model to /admin; return status and body of the response."""
        path = f"/admin/models/{self.bundle.folder.name}/{action}"
        content = json.dumps(body).encode() if body else b""
        headers = {"Authorization": f"Bearer {self.token}"}
        request = encode_request(method, path, content, host="127.0.0.1", headers=headers)
        response = fetch(self.server.port, request, timeout=LOAD_SECONDS)
        return response.status, json.loads(response.body)
