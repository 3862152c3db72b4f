"""Test model names, the folder of bundles, and the last line and exit code of a command."""

from pathlib import Path

import pytest

from models.bundle.errors import BundleMissingError
from models.bundle.store import artifacts, bundle_folder, has_bundle, open_bundle
from models.common.cli import run
from models.common.errors import HalftoneError
from tests.samples import small_bundle


@pytest.mark.parametrize("name", ["", ".", "..", "../x", "a/b", "/etc", "-x", ".hidden", "a b", "a\n", "a;b", "löwe"])
def test_a_name_can_not_leave_the_folder(name: str) -> None:
    with pytest.raises(HalftoneError, match="is not a model's name: use letters"):
        bundle_folder(name)


def test_the_environment_variable_names_the_folder_of_bundles(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HALFTONE_ARTIFACTS", str(tmp_path))
    small_bundle(tmp_path / "v1.2-b_x")

    assert has_bundle("v1.2-b_x")
    assert open_bundle("v1.2-b_x").folder == tmp_path / "v1.2-b_x"


@pytest.mark.parametrize("value", [None, ""])
def test_the_folder_of_bundles_is_artifacts_by_default(value: str | None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("HALFTONE_ARTIFACTS", raising=False)
    if value is not None:
        monkeypatch.setenv("HALFTONE_ARTIFACTS", value)

    assert artifacts() == Path("artifacts")


def test_a_missing_bundle_names_the_command_that_creates_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HALFTONE_ARTIFACTS", str(tmp_path))
    (tmp_path / "empty").mkdir()

    for name in ("nothing", "empty"):
        assert not has_bundle(name)
        with pytest.raises(BundleMissingError, match=f"`python -m export --model {name}`"):
            open_bundle(name)


@pytest.mark.parametrize(
    ("error", "code", "line"),
    [
        (HalftoneError("do this instead"), 2, "error: do this instead\n"),
        (KeyboardInterrupt(), 130, "interrupted: no incomplete files were left behind\n"),
    ],
)
def test_a_command_ends_in_one_line(
    error: BaseException, code: int, line: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def command(_: int) -> int:
        raise error

    monkeypatch.setattr("sys.argv", ["prog", "1"])
    with pytest.raises(SystemExit) as caught:
        run(command, int, prog="prog")

    assert (caught.value.code, capsys.readouterr().err) == (code, line)
