"""A step of the wall clock does no harm: only time stamps for people use it, and the days that pictures are kept."""

import ast

from tests.servers import ROOT

WALL_CLOCK = {"time.time", "time.time_ns", "datetime.now", "datetime.utcnow", "datetime.today", "date.today"}
TIME_STAMPS = {
    "telemetry/request_log.py",
    "telemetry/spans.py",
    "telemetry/inference_totals.py",
    "lifecycle/served_model.py",
    "lifecycle/canary/rollout.py",
    "profile/__main__.py",
    "batch/benchmark.py",
    "collect/collector.py",
    "collect/store.py",
    "decoding/benchmark.py",
}
"""Time stamps of log lines, of spans, of reports, of collected pictures, of decisions and of the loading of a model."""


def test_time_is_monotonic() -> None:
    readers = {
        path.relative_to(ROOT / "serving").as_posix()
        for path in (ROOT / "serving").rglob("*.py")
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.Attribute) and ast.unparse(node) in WALL_CLOCK
    }

    assert readers <= TIME_STAMPS
