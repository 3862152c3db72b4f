"""The order of the test files: by the seconds recorded last, the slowest first.

pytest-xdist gives out whole files in the order of the collection. With a slow file last, all processes but one would
wait for it. `make test PYTEST_FLAGS=--record-seconds` records them.
"""

import json
from collections import Counter
from pathlib import Path

import pytest

FILE = Path(__file__).with_name("seconds.json")
FAST = 4.0
"""Seconds that a file may take to be run by `--fast`."""


def file_of(nodeid: str) -> str:
    return nodeid.partition("::")[0]


def sort(items: list[pytest.Item]) -> None:
    """Sort the slowest files first, those without a recorded time before them."""
    seconds = recorded()

    def place(item: pytest.Item) -> tuple[float, str]:
        file = file_of(item.nodeid)
        return -seconds.get(file, float("inf")), file

    items.sort(key=place)


def slow(items: list[pytest.Item]) -> set[pytest.Item]:
    """Return the tests of files that take longer than `--fast` allows."""
    seconds = recorded()
    return {item for item in items if seconds.get(file_of(item.nodeid), 0) > FAST}


def recorded() -> dict[str, float]:
    """Return the seconds by file."""
    return dict(json.loads(FILE.read_text()))


class Recorder:
    """A plugin that writes down how long each file took; files that were not run keep their figure while they exist."""

    def __init__(self) -> None:
        self._seconds = Counter[str]()

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """Add a set-up, a test or a clean-up."""
        self._seconds[file_of(report.nodeid)] += report.duration  # type: ignore[assignment]

    def pytest_sessionfinish(self, session: pytest.Session) -> None:
        """Write the file."""
        seconds = {name: each for name, each in recorded().items() if (session.config.rootpath / name).exists()}
        seconds |= {name: round(each, 1) for name, each in self._seconds.items()}
        FILE.write_text(json.dumps(dict(sorted(seconds.items())), indent=1) + "\n")
