"""Swaps under load, in short: no request fails, and each answer is by a version in charge that did make it."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from loadtest.swaps.__main__ import plan
from loadtest.swaps.bundles import BAD
from loadtest.swaps.checks import ServingInterval, judge
from loadtest.swaps.clients import Sample
from tests.servers import ROOT, environment


def test_a_model_is_swapped_while_clients_ask(artifacts: Path, tmp_path: Path) -> None:
    report = tmp_path / "swaps.json"
    command = [sys.executable, "-m", "loadtest.swaps", "--swaps", "7", "--bad", "2", "--rollbacks", "1"]
    command += ["--clients", "4", "--artifacts", str(artifacts), "--output", str(report)]
    settings = environment(None, HALFTONE_VARIANT="onnxruntime-fp32")

    result = subprocess.run(command, cwd=ROOT, env=settings, capture_output=True, text=True, check=False)

    assert result.returncode == 0, result.stdout + result.stderr
    findings = json.loads(report.read_text())
    figures = {figure["name"]: figure["value"] for figure in findings["figures"]}
    assert findings["met"]
    assert [figures[name] for name in ("new versions loaded", "rollbacks", "bad bundles refused")] == [4, 1, 2]
    # One that is rolled back at once may have answered nobody.
    assert figures["versions that answered"] in (4, 5)
    assert all(figures[f"requests of {way}"] for way in ("classify", "classify_batch", "v2"))
    assert "| failed requests | 0 | 0 | met |" in report.with_suffix(".md").read_text()


def test_the_plan_has_what_was_asked_for() -> None:
    steps = plan(100, 10, 10)

    assert (len(steps), steps[0], steps.count("rollback")) == (100, "load", 10)
    assert sorted(step for step in steps if step in BAD) == sorted(BAD)


REIGNS = [
    ServingInterval(version="a", temperature=1.0, begun=0, done=0),
    ServingInterval(version="b", temperature=2.0, begun=10, done=12),
    ServingInterval(version="a", temperature=1.0, begun=20, done=21),
]


def judged(samples: list[Sample]) -> dict[str, Any]:
    """The verdict's figures by name; those with a goal hold where they are 0."""
    figures = judge(samples, REIGNS)
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
def test_an_answer_by_a_version_that_was_not_in_charge_is_found(
    version: str, sent: float, received: float, wrong: int
) -> None:
    gap = 3.0 / {"a": 1.0, "b": 2.0}.get(version, 1.0)
    sample = Sample(way="classify", sent=sent, received=received, status=200, version=version, gaps=(gap,))

    assert judged([sample])["answers by a version not in charge"] == wrong


def test_an_answer_that_another_version_made_is_found() -> None:
    right = Sample(way="classify", sent=1, received=2, status=200, version="a", gaps=(3.0,))
    mixed = Sample(way="classify", sent=13, received=14, status=200, version="b", gaps=(1.5, 3.0))
    failed = Sample(way="v2", sent=1, received=2, status=503, problem="ValueError: not ready")

    verdict = judged([right, right, mixed, failed])

    assert verdict["answers not made by the version they name"] == 1
    assert (verdict["failed requests"], verdict["answers by a version not in charge"]) == (1, 0)
