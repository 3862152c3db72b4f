"""`python -m loadtest.readme`: the README section is generated from the newest reports."""

import json
import subprocess
from pathlib import Path
from typing import Any

import pytest

from tests.commands import run

HARDWARE = {"cpu": "A processor", "extensions": "avx2", "cores": 2, "system": "Linux x86_64, Python 3.11"}
TEXT = "# Name\n\n<!-- performance -->\nwhat was before\n<!-- /performance -->\n\nThe rest.\n"


def row(title: str, rate: float, **changes: Any) -> dict[str, Any]:
    spread = {"median": rate, "low": rate, "high": rate}
    level = {"rate": spread, "p99_ms": spread, "ratios": {"× FastAPI": rate / 100}}
    return {"title": title, "engine": "e", "levels": [level], "peak_mib": spread, "reason": ""} | changes


def compared(rate: float) -> dict[str, Any]:
    return {
        "date": "2026-01-02T03:04:05",
        "hardware": HARDWARE,
        "clients": [8],
        "rows": [row("Halftone", rate), row("Ray Serve", 1, levels=[], peak_mib=None, reason="not installed: x")],
    }


def swept() -> dict[str, Any]:
    return {
        "date": "2026-01-03T03:04:05",
        "hardware": HARDWARE,
        "server": {"model": "m", "version": "1", "variant": "openvino-bf16"},
        "target_ms": 50.0,
        "highest_rate": 246.4,
        "scenarios": {
            "SingleStream": {"pictures": 1, "latency_ms": {"90": 4.21}},
            "Offline": {"pictures": 16, "images_per_second": 300.6},
        },
    }


def tuned() -> dict[str, Any]:
    return {
        "date": "2026-01-03T03:04:05",
        "hardware": HARDWARE,
        "target_ms": 50.0,
        "chosen": {"setting": "openvino-bf16, 3 threads", "rate": 260.0},
        "untuned": {"rate": 240.0},
        "plan": {
            "cores": 2,
            "memory_mib": 512,
            "confirmed": 255.0,
            "traffic": [{"requests_per_second": 2000.0, "replicas": 10}],
        },
    }


def readme(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    return run("loadtest.readme", "--readme", folder / "README.md", *arguments, "--reports", folder)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "README.md").write_text(TEXT)
    reports = {
        "2026-01-01-compare": compared(111),
        "2026-01-02-compare": compared(222),
        "2026-01-03-sweep": swept(),
        "2026-01-03-tune": tuned(),
        "2026-01-04-noop": {},
    }
    for name, report in reports.items():
        (tmp_path / f"{name}.json").write_text(json.dumps(report))
    return tmp_path


def test_the_newest_reports_go_between_the_marks_and_nothing_else_changes(folder: Path) -> None:
    assert readme(folder, "--check").returncode == 1
    assert (folder / "README.md").read_text() == TEXT

    assert readme(folder).returncode == 0

    text = (folder / "README.md").read_text()
    assert text.startswith("# Name\n\n<!-- performance -->\n")
    assert text.endswith("<!-- /performance -->\n\nThe rest.\n")
    assert "| Halftone | e | 222 | 222 | 2.22 | 222 |" in text
    assert "| Ray Serve | e | not measured | – | – | – |" in text
    assert "what was before" not in text
    assert "111" not in text
    assert "| Server | 246 requests/s |" in text
    assert "4.2 ms" in text
    assert "openvino-bf16, 3 threads holds 260 requests/s (untuned 240), and 255 in a second run" in text
    assert "10 for 2000 requests/s" in text
    assert "A processor, 2 cores (avx2)" in text
    assert "[2026-01-02-compare](2026-01-02-compare.md)" in text
    assert readme(folder, "--check").returncode == 0


def test_a_tie_is_called_a_tie(folder: Path) -> None:
    report = compared(101)
    report["rows"][0]["levels"][0]["ratio_intervals"] = {"× FastAPI": [0.9, 1.1]}
    (folder / "2026-01-05-compare.json").write_text(json.dumps(report))

    assert readme(folder).returncode == 0

    assert "| Halftone | e | 101 | 101 | 1.01 tie | 101 |" in (folder / "README.md").read_text()


def test_a_dated_folder_may_hold_the_reports_of_a_day(folder: Path) -> None:
    (folder / "2026-01-05-serving").mkdir()
    (folder / "2026-01-05-serving" / "compare.json").write_text(json.dumps(compared(333)))
    (folder / "other").mkdir()
    (folder / "other" / "compare.json").write_text("{")

    assert readme(folder).returncode == 0

    text = (folder / "README.md").read_text()
    assert "| Halftone | e | 333 | 333 | 3.33 | 333 |" in text
    assert "[compare](2026-01-05-serving/compare.md)" in text


@pytest.mark.parametrize(
    ("break_it", "message"),
    [
        (lambda folder: (folder / "README.md").write_text("# Name\n"), "has no lines <!-- performance -->"),
        (lambda folder: (folder / "README.md").unlink(), "No such file"),
        (lambda folder: (folder / "2026-01-03-sweep.json").write_text("{}"), "is no report that this version reads"),
        (lambda folder: [path.unlink() for path in folder.glob("*.json")], "holds no report"),
    ],
)
def test_a_wrong_request_is_one_line(folder: Path, break_it: Any, message: str) -> None:
    break_it(folder)

    result = readme(folder)

    assert result.returncode == 2
    assert message in result.stderr
    assert result.stderr.count("\n") == 1
