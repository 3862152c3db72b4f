"""A step of the clock harms nothing: only what tells people the time of day looks at it."""

import ast

from tests.servers import ROOT

WALL_CLOCK = {"time.time", "time.time_ns", "datetime.now", "datetime.utcnow", "datetime.today", "date.today"}
TELL_THE_TIME = {
    "telemetry/log.py",
    "telemetry/spans.py",
    "served.py",
    "profile/__main__.py",
    "batch/benchmark.py",
    "decoding/benchmark.py",
}
"""Stamps of log lines, of spans, of reports, and of when a model was loaded."""


def test_time_is_monotonic() -> None:
    readers = {
        path.relative_to(ROOT / "serving").as_posix()
        for path in (ROOT / "serving").rglob("*.py")
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.Attribute) and ast.unparse(node) in WALL_CLOCK
    }

    assert readers <= TELL_THE_TIME
