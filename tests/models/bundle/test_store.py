"""Test model names, the folder of bundles, and the last line and exit code of a command."""

from pathlib import Path

import pytest

from models.bundle.errors import BundleMissingError, SymlinkError
from models.bundle.store import RUN, artifacts, bundle_folder, exporting, has_bundle, open_bundle, unfinished_training
from models.common.cli import run
from models.common.errors import HalftoneError
from models.resolve import architecture_of
from tests.samples import small_bundle


@pytest.mark.parametrize("name", ["", ".", "..", "-x", ".hidden", "a b", "a\n", "a;b", "löwe"])
def test_a_name_can_not_leave_the_folder(name: str) -> None:
    with pytest.raises(HalftoneError, match="is not a model's name: use letters"):
        bundle_folder(name)


@pytest.mark.parametrize(
    ("name", "way_out"),
    [
        ("artifacts/x", "write x"),
        ("artifacts/x/", "write x"),
        ("../x", "write x, and set HALFTONE_ARTIFACTS=.."),
        ("/etc", "write etc, and set HALFTONE_ARTIFACTS=/"),
    ],
)
def test_a_path_is_no_name(name: str, way_out: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("HALFTONE_ARTIFACTS", raising=False)
    with pytest.raises(HalftoneError) as caught:
        bundle_folder(name)

    assert str(caught.value) == f"{name!r} is not a model's name but a path: {way_out}"


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


def test_a_missing_bundle_is_answered_with_what_there_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HALFTONE_ARTIFACTS", str(tmp_path))
    (tmp_path / "empty").mkdir()

    with pytest.raises(BundleMissingError, match="holds none; create it with `python -m export --model efficientnet_l"):
        open_bundle("efficientnet_lite0")
    for name in ("clothes", "empty"):
        assert not has_bundle(name)
        with pytest.raises(BundleMissingError, match=r"holds none; .* that `python -m models` lists, or set HALFTONE_"):
            open_bundle(name)
    small_bundle(tmp_path / "clothes-v2")
    small_bundle(tmp_path / "photos")
    with pytest.raises(BundleMissingError, match=r"did you mean clothes-v2\? there is clothes-v2, photos; "):
        open_bundle("clothes")


def test_a_name_without_a_bundle_is_answered_with_what_may_be_meant(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HALFTONE_ARTIFACTS", str(tmp_path))
    small_bundle(tmp_path / "clothes")
    run_file = unfinished_training(tmp_path / "new") / RUN
    run_file.parent.mkdir()
    run_file.write_text("{}")

    resume = f"its training is not finished: `python -m training --output {tmp_path}/new --resume` goes on with it"
    for name, words in (("clohtes", r"did you mean clothes\?"), ("new", resume)):
        with pytest.raises(HalftoneError, match=f"no architecture '{name}', and no bundle of that name: {words}$"):
            architecture_of(name)
    with pytest.raises(BundleMissingError, match=f"{resume}; there is clothes"):
        open_bundle("new")


def test_a_bundle_that_is_taken_for_the_folder_of_bundles(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    small_bundle(tmp_path / "mnt" / "models")
    monkeypatch.setenv("HALFTONE_ARTIFACTS", str(tmp_path / "mnt" / "models"))
    advice = rf"is a bundle itself, .*: set HALFTONE_ARTIFACTS={tmp_path}/mnt and name the model models"

    with pytest.raises(BundleMissingError, match=advice):
        open_bundle("photos")

    monkeypatch.setenv("HALFTONE_ARTIFACTS", str(tmp_path / "mnt"))
    assert open_bundle("models").folder == tmp_path / "mnt" / "models"


def test_a_link_out_of_the_folder_of_bundles_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    small_bundle(tmp_path / "elsewhere" / "v1")
    small_bundle(tmp_path / "artifacts" / "v2")
    (tmp_path / "artifacts" / "outside").symlink_to(tmp_path / "elsewhere" / "v1")
    (tmp_path / "artifacts" / "dangling").symlink_to(tmp_path / "elsewhere" / "nothing")
    (tmp_path / "artifacts" / "current").symlink_to("v2")
    (tmp_path / "link").symlink_to("artifacts")
    monkeypatch.setenv("HALFTONE_ARTIFACTS", str(tmp_path / "link"))

    refusal = "is a symbolic link that leads out .*: replace it with a copy"
    for name in ("outside", "dangling"):
        for use in (open_bundle, has_bundle, bundle_folder):
            with pytest.raises(SymlinkError, match=rf"{name} {refusal}"):
                use(name)
    assert open_bundle("current").name == "current"
    # What the message advises.
    monkeypatch.setenv("HALFTONE_ARTIFACTS", str(tmp_path / "elsewhere"))
    assert open_bundle("v1")


@pytest.mark.parametrize("length", [201, 300, 65_000])
def test_a_name_that_no_file_system_takes(length: int) -> None:
    with pytest.raises(HalftoneError, match=f"it has {length} characters, use at most 200") as refused:
        bundle_folder("a" * length)
    assert len(str(refused.value)) < 200


def test_one_export_of_a_bundle_at_a_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HALFTONE_ARTIFACTS", str(tmp_path))

    busy = pytest.raises(HalftoneError, match=r"another export of .*tiny is at work: wait until it ends")
    with exporting("tiny"), exporting("other"), busy, exporting("tiny"):
        pass
    with exporting("tiny"):
        assert [path.name for path in tmp_path.iterdir()] == [".tiny.lock"]
    assert list(tmp_path.iterdir()) == []


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
        run(command, int, prog="prog", example="")

    assert (caught.value.code, capsys.readouterr().err) == (code, line)
