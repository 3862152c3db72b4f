"""Commands that are printed as the next step."""

from dataclasses import replace
from pathlib import Path

import pytest

from models.bundle.bundle import Bundle
from models.bundle.commands import export_command, serve_command
from tests.samples import manifest


def test_training_is_followed_by_an_export(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "my photos").mkdir()

    assert export_command(Path("artifacts/a"), "my photos") == "python -m export --model a --data 'my photos'"
    assert export_command(Path("artifacts/a"), "table.csv") == "python -m export --model a"
    assert export_command(Path("artifacts/a"), "") == "python -m export --model a"
    assert export_command(Path("b c/a"), "x") == f"HALFTONE_ARTIFACTS='{tmp_path}/b c' python -m export --model a"


def test_an_export_is_followed_by_serving(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for name, trained in (("a", True), ("b", False)):
        with Bundle.creating(Path("artifacts") / name, replace(manifest(name=name), trained=trained)):
            pass

    installed = serve_command(Bundle.open(Path("artifacts/a")))
    (tmp_path / "bentofile.yaml").touch()

    assert installed == "HALFTONE_MODEL=a bentoml serve serving.service:HalftoneService"
    assert serve_command(Bundle.open(Path("artifacts/a"))) == "HALFTONE_MODEL=a bentoml serve"
    untrained = "HALFTONE_MODEL=b HALFTONE_ALLOW_UNTRAINED=1 bentoml serve"
    assert serve_command(Bundle.open(Path("artifacts/b"))) == untrained
