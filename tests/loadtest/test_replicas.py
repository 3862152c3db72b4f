"""Three replicas behind nginx: restarted, killed, swapped one by one and given a canary's share, they lose nothing."""

import re
from pathlib import Path
from typing import Any

import pytest

from loadtest.client.blocking import status_of
from loadtest.fleet.__main__ import FleetConfig, under_load
from loadtest.fleet.proxy import balanced
from loadtest.fleet.simulated import WAIT_MS, compare
from serving.settings import Settings
from tests.servers import PHOTOS, QUICK, ROOT

BAD_GATEWAY = 502
"""Of a proxy that reaches no replica."""

CONFIGURATION = (ROOT / "deploy" / "nginx" / "halftone.conf").read_text()
PHASES = ("quiet", "rolling restart", "kill -9 of one", "hot swap one by one", "canary")


@pytest.fixture(scope="module")
def figures(small: Path) -> dict[str, Any]:
    """Name to value of each figure of a short run."""
    with pytest.MonkeyPatch.context() as patch:
        for name, value in QUICK.items():
            patch.setenv(name, value)
        found = under_load(FleetConfig(artifacts=small, rate=30, seconds=1.5))
    return {each.name: each.value for each in found}


pytestmark = pytest.mark.tool("nginx")


@pytest.mark.parametrize("phase", PHASES)
def test_no_request_is_lost_and_no_version_is_named_wrongly(figures: dict[str, Any], phase: str) -> None:
    assert figures[f"{phase}: accepted requests"] > 0
    assert (figures[f"{phase}: lost"], figures[f"{phase}: versions named wrongly"]) == (0, 0), figures


def test_requests_of_a_killed_replica_are_sent_to_another_one(figures: dict[str, Any]) -> None:
    assert figures["kill -9 of one: sent to a second replica"] > 0
    assert figures["quiet: sent to a second replica"] == 0


def test_both_versions_are_seen_during_a_roll_out(figures: dict[str, Any]) -> None:
    seen = [figures[f"{phase}: versions seen"] for phase in PHASES]

    assert seen[:3] == [1, 1, 1]
    assert seen[3] == 2
    assert seen[4] == 2
    assert 0 < float(figures["canary: share of the new version"].rstrip("%")) < 50


def test_the_simulation_is_shown_beside_a_replica(small: Path) -> None:
    picture = (PHOTOS / "cat.jpg").read_bytes()

    figures = {each.name: each.value for each in compare("efficientnet_lite0", small, 1, picture, seconds=1)}

    assert figures["model: service time, p50 ms"] > WAIT_MS
    for rate in (20, 25):
        measured, simulated = (figures[f"model: {rate} requests/s, p99 ms, {way}"] for way in ("measured", "simulated"))
        error = float(figures[f"model: {rate} requests/s, p99 ms, error"].rstrip("%"))
        assert simulated / measured - 1 == pytest.approx(error / 100, abs=0.01)


def test_weights_stand_in_the_file_that_is_deployed() -> None:
    with balanced({"127.0.0.1:1": 9, "127.0.0.1:2": 2}) as proxy:
        assert status_of(proxy.port, "/livez") == BAD_GATEWAY
        proxy.send_to({"127.0.0.1:3": 1})
        assert status_of(proxy.port, "/livez") == BAD_GATEWAY


def test_the_proxy_agrees_with_the_settings_of_the_service() -> None:
    limits = {name: float(value) for name, value in re.findall(r"(\w+) ([\d.]+)[ms]*;", CONFIGURATION)}
    settings = Settings()

    assert limits["client_max_body_size"] == settings.max_body_mb
    assert limits["proxy_read_timeout"] > settings.deadline
    assert limits["proxy_next_upstream_tries"] == CONFIGURATION.count("    server 10.0.0.")
