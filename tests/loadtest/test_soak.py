"""Short soak test: resources of the service stay flat, and the same check detects a server that leaks."""

from pathlib import Path

import pytest

from loadtest.soak import Growth, Sample, Soak, find_leak, main
from tests.servers import QUICK


def test_growth_is_detected_and_noise_is_not() -> None:
    flat = Growth.of([Sample(100.0 + index % 3, 20 + index % 2, 9) for index in range(100)])
    grown = Growth.of([Sample(100.0 + index, 20 + index, 9 + index) for index in range(100)])

    assert all(figure.holds for figure in flat.figures(20))
    assert not any(figure.holds for figure in grown.figures(20))


def test_the_leak_of_the_test_server_is_detected() -> None:
    assert find_leak(3).memory > 20


def test_the_service_stays_flat(
    artifacts: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for name, value in {"HALFTONE_ARTIFACTS": str(artifacts), **QUICK}.items():
        monkeypatch.setenv(name, value)

    code = main(Soak(minutes=0.08, warm_up=5, pictures=40, leak_seconds=2, output=tmp_path / "soak"))

    printed = capsys.readouterr().out
    assert code == 0, printed
    assert "memory growth (MiB)" in (tmp_path / "soak.md").read_text()
