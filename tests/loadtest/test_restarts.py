"""Short restarts under load: SIGTERM loses no accepted request, a killed worker only those in flight."""

import random
from pathlib import Path

import pytest

from loadtest.client.http1 import post
from loadtest.restarts import Restarts, Stops, kill_workers, stop_once
from tests.servers import PHOTOS, QUICK

CLIENTS = 4


@pytest.fixture
def requests(artifacts: Path, monkeypatch: pytest.MonkeyPatch) -> list[bytes]:
    for name, value in {"HALFTONE_ARTIFACTS": str(artifacts), **QUICK}.items():
        monkeypatch.setenv(name, value)
    picture = (PHOTOS / "cat.jpg").read_bytes()
    return [post("/classify", picture, keep_alive=keep) for keep in (True, False)]


def test_sigterm_under_load_loses_nothing(requests: list[bytes]) -> None:
    stops = Stops()

    for seconds in (0.2, 0.5):
        stop_once(stops, requests, Restarts(clients=CLIENTS, lame_duck=0.3), seconds)

    assert stops.answered > 0
    assert (stops.lost, stops.late_ready, stops.exit_codes) == (0, 0, {0: 2})
    assert set(stops.statuses) == {200}


def test_a_killed_worker_loses_only_what_was_in_flight(requests: list[bytes]) -> None:
    kills = kill_workers(requests, Restarts(clients=CLIENTS, sigkill=1), random.Random(0))

    assert len(kills.seconds) == 1
    assert kills.lost[0] <= CLIENTS
    assert set(kills.statuses) == {200}
