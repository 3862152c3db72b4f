"""Figures as a table and as JSON."""

import json
import math
from pathlib import Path

import pytest

from loadtest.reporting.figures import Figure, Findings


def test_figures_are_printed_and_kept(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    figures = [
        Figure("responses by status", {200: 3}),
        Figure("p99, ms", math.nan, "at most 5", holds=False),
        Figure("a|b", 0, "0"),
    ]

    code = Findings("Title", figures, {"seed": 1}).report(tmp_path / "folder" / "report")

    assert code == 1
    printed = capsys.readouterr().out
    assert "| responses by status | {200: 3} |  |  |\n" in printed
    assert "| p99, ms | nan | at most 5 | **missed** |\n" in printed
    assert "| a\\|b | 0 | 0 | met |\n" in printed
    assert "- seed: 1\n" in printed
    assert (tmp_path / "folder" / "report.md").read_text() == printed
    report = json.loads((tmp_path / "folder" / "report.json").read_text(), parse_constant=pytest.fail)
    assert [figure["value"] for figure in report["figures"]] == [{"200": 3}, None, 0]
    assert report["met"] is False


@pytest.mark.parametrize(("figures", "code"), [([], 1), ([Figure("a", 1)], 0), ([Figure("a", 1, "2", holds=False)], 1)])
def test_nothing_measured_and_a_missed_goal_fail(figures: list[Figure], code: int) -> None:
    assert Findings("Title", figures).exit_code == code
