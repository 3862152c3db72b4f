"""Commands that are printed as the next step."""

from dataclasses import replace
from pathlib import Path

import pytest

from models.bundle.commands import export_command, in_folder, serve_command, without_place
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

    installed = serve_command(Path("artifacts/a"), manifest(name="a"))
    (tmp_path / "bentofile.yaml").touch()

    assert installed == "HALFTONE_MODEL=a bentoml serve serving.service:HalftoneService"
    assert serve_command(Path("artifacts/a"), manifest(name="a")) == "HALFTONE_MODEL=a bentoml serve"
    untrained = "HALFTONE_MODEL=b HALFTONE_ALLOW_UNTRAINED=1 bentoml serve"
    assert serve_command(Path("artifacts/b"), replace(manifest(name="b"), trained=False)) == untrained


def test_what_is_said_outside_names_no_place(tmp_path: Path) -> None:
    advice = in_folder(tmp_path / "my bundles" / "a", "python -m export --model a")

    assert advice == f"HALFTONE_ARTIFACTS='{tmp_path}/my bundles' python -m export --model a"
    text = f"{tmp_path}/my bundles/a/x is missing: `{advice}`"
    assert without_place(text, tmp_path / "my bundles") == "a/x is missing: `python -m export --model a`"
