"""Short hot swaps under load: no request fails, and each response names the active version that computed it."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from loadtest.client.routes import Sample
from loadtest.servers.bundles import BAD, FAULTY
from loadtest.servers.versions import ServingInterval, check_samples, count_wrong
from loadtest.swaps.__main__ import swap_sequence
from loadtest.swaps.canaries import GOOD, canary_sequence
from tests.servers import ROOT, environment


def test_a_model_is_swapped_under_load(artifacts: Path, tmp_path: Path) -> None:
    report = tmp_path / "swaps.json"
    command = [sys.executable, "-m", "loadtest.swaps", "--swaps", "7", "--bad", "2", "--rollbacks", "1"]
    command += ["--canaries", "2", "--bad-canaries", "2", "--clients", "4"]
    command += ["--artifacts", str(artifacts), "--output", str(report)]
    settings = environment(None, HALFTONE_VARIANT="onnxruntime-fp32")

    result = subprocess.run(command, cwd=ROOT, env=settings, capture_output=True, text=True, check=False)

    assert result.returncode == 0, result.stdout + result.stderr
    findings = json.loads(report.read_text())
    figures = {figure["name"]: figure["value"] for figure in findings["figures"]}
    assert findings["met"]
    assert [figures[name] for name in ("new versions loaded", "rollbacks", "invalid bundles refused")] == [4, 1, 2]
    assert figures["faulty canaries rolled back by the rule"] == 2
    assert "agreement" in figures["canary labels"]
    assert "the engine failed" in figures["canary failing"]
    # A version that is rolled back at once may have served no request.
    assert 4 <= figures["versions seen in responses"] <= 7
    assert all(figures[f"requests of {route}"] for route in ("classify", "classify_batch", "v2"))
    assert "| failed requests | 0 | 0 | met |" in report.with_suffix(".md").read_text()


def test_the_sequence_holds_each_kind_of_step() -> None:
    steps = swap_sequence(100, 10, 10)

    assert (len(steps), steps[0], steps.count("rollback")) == (100, "load", 10)
    assert sorted(step for step in steps if step in BAD) == sorted(BAD)


def test_the_faulty_canaries_are_spread_and_of_each_kind() -> None:
    candidates = canary_sequence(20, 5)

    assert [place for place, kind in enumerate(candidates) if kind != GOOD] == [2, 6, 10, 14, 18]
    assert set(candidates) == {GOOD, *FAULTY}


INTERVALS = [
    ServingInterval(version="a", temperature=1.0, requested=0, confirmed=0),
    ServingInterval(version="b", temperature=2.0, requested=10, confirmed=12),
    ServingInterval(version="a", temperature=1.0, requested=20, confirmed=21),
]


def checked(samples: list[Sample]) -> dict[str, Any]:
    """Return the figures by name; check that those with a goal hold if they are 0."""
    figures = check_samples(samples, INTERVALS)
    assert all(figure.holds is (figure.value == 0) for figure in figures if figure.goal)
    return {figure.name: figure.value for figure in figures}


@pytest.mark.parametrize(
    ("version", "sent", "received", "wrong"),
    [
        ("a", 1, 2, 0),
        ("b", 1, 9, 1),
        ("a", 9, 11, 0),
        ("b", 9, 11, 0),
        ("a", 12.5, 13, 1),
        ("b", 12.5, 13, 0),
        ("b", 20.5, 22, 0),
        ("b", 21.5, 22, 1),
        ("a", 21.5, 22, 0),
        ("c", 21.5, 22, 1),
    ],
)
def test_a_response_of_an_inactive_version_is_found(version: str, sent: float, received: float, wrong: int) -> None:
    gap = 3.0 / {"a": 1.0, "b": 2.0}.get(version, 1.0)
    sample = Sample(route="classify", sent=sent, received=received, status=200, version=version, gaps=(gap,))

    assert checked([sample])["responses of an inactive version"] == wrong


@pytest.mark.parametrize(("sent", "received", "wrong"), [(1, 3, 1), (4, 6, 0), (8, 9, 0), (9.5, 9.9, 1)])
def test_a_response_of_a_candidate_outside_its_trial_is_found(sent: float, received: float, wrong: int) -> None:
    trial = ServingInterval(version="c", temperature=1.5, requested=5, confirmed=6, ended=9)
    sample = Sample(route="classify", sent=sent, received=received, status=200, version="c", gaps=(2.0,))

    assert count_wrong([sample], INTERVALS, [trial]) == (wrong, 0)


def test_a_response_that_names_another_version_is_found() -> None:
    right = Sample(route="classify", sent=1, received=2, status=200, version="a", gaps=(3.0,))
    mixed = Sample(route="classify", sent=13, received=14, status=200, version="b", gaps=(1.5, 3.0))
    failed = Sample(route="v2", sent=1, received=2, status=503, problem="ValueError: not ready")

    figures = checked([right, right, mixed, failed])

    assert figures["responses that name another version than the one that computed them"] == 1
    assert (figures["failed requests"], figures["responses of an inactive version"]) == (1, 0)
