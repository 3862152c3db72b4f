"""The soak in short: the service stays flat, and the same check finds a server that leaks."""

from pathlib import Path

import pytest

from loadtest.soak import Growth, Sample, Soak, find_leak, main


def test_flat_is_flat_and_growth_is_found() -> None:
    flat = Growth.of([Sample(100.0 + index % 3, 20 + index % 2, 9) for index in range(100)])
    grown = Growth.of([Sample(100.0 + index, 20 + index, 9 + index) for index in range(100)])

    assert all(figure.holds for figure in flat.figures(20))
    assert not any(figure.holds for figure in grown.figures(20))


def test_a_leak_is_found() -> None:
    assert find_leak(3).memory > 20


def test_the_service_stays_flat(
    artifacts: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("HALFTONE_ARTIFACTS", str(artifacts))

    code = main(Soak(minutes=0.08, warm_up=5, pictures=40, leak_seconds=2, output=tmp_path / "soak"))

    printed = capsys.readouterr().out
    assert code == 0, printed
    assert "memory growth (MiB)" in (tmp_path / "soak.md").read_text()
