"""Test that writing a bundle is atomic, safe with concurrent writers, and never reaches outside its folder."""

import functools
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from models.bundle.bundle import WEIGHTS, Bundle
from models.bundle.errors import (
    BundleError,
    FileMissingError,
    HashMismatchError,
    OutsideError,
    StaleError,
    SymlinkError,
)
from models.bundle.manifest import Manifest
from models.common.files import atomic_path, write_atomic
from tests.samples import edit_manifest, manifest, small_bundle


def tree(folder: Path) -> dict[str, bytes]:
    """Map every file of a folder to its content."""
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


def together(*writers: Callable[[], object]) -> None:
    """Run all writers at the same time; raise the first error."""
    start = threading.Barrier(len(writers))

    def run(writer: Callable[[], object]) -> None:
        start.wait()
        writer()

    with ThreadPoolExecutor(len(writers)) as pool:
        list(pool.map(run, writers))


def writer(folder: Path, name: str, data: bytes) -> Callable[[], None]:
    """Open the bundle as another command would; return a function that writes a file to it."""
    return functools.partial(Bundle.open(folder).write, name, data, made_by="a test")


def test_a_new_bundle_has_the_given_manifest(tmp_path: Path) -> None:
    bundle = small_bundle(tmp_path / "tiny", label_ids=("n1", "n2"), training={"epochs": 3}, temperature=1.5)

    again = Bundle.open(tmp_path / "tiny")

    assert again.manifest == bundle.manifest
    assert again.read(WEIGHTS) == b"weights"
    assert (again.manifest.files[WEIGHTS].size, again.manifest.files[WEIGHTS].made_by) == (7, "`make weights`")
    assert sorted(tree(tmp_path)) == ["tiny/manifest.json", "tiny/weights.safetensors"]


def test_a_failed_creation_leaves_nothing(tmp_path: Path) -> None:
    with pytest.raises(ZeroDivisionError), Bundle.creating(tmp_path / "tiny", manifest()) as bundle:
        bundle.write(WEIGHTS, bytes(1 // 0), made_by="a test")

    assert list(tmp_path.iterdir()) == []


def test_a_bundle_replaces_an_empty_folder_only(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "file").write_text("mine")
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "mine").write_text("mine")

    small_bundle(tmp_path / "empty")
    for taken in ("file", "full"):
        with pytest.raises(BundleError, match=f"{taken} is not empty: remove it"):
            small_bundle(tmp_path / taken)
    # Nothing advises to remove a bundle: it may be what another command has made in the meantime.
    with pytest.raises(BundleError, match="empty is not empty, it holds a bundle already: use that one, or"):
        small_bundle(tmp_path / "empty")

    assert (tmp_path / "file").read_text() == (tmp_path / "full" / "mine").read_text() == "mine"


def test_the_second_of_two_creators_of_a_bundle_gets_an_error(tmp_path: Path) -> None:
    def slower() -> None:
        with Bundle.creating(tmp_path / "tiny", manifest()) as bundle:
            small_bundle(tmp_path / "tiny", source="the faster one")
            bundle.write(WEIGHTS, b"slow", made_by="a test")

    with pytest.raises(BundleError, match="tiny is not empty"):
        slower()

    assert Bundle.open(tmp_path / "tiny").manifest.source == "the faster one"
    assert [path.name for path in tmp_path.iterdir()] == ["tiny"]


@pytest.mark.parametrize("partial", [b"", b"half of it"])
def test_a_writer_that_fails_leaves_the_old_file(tmp_path: Path, partial: bytes) -> None:
    bundle = small_bundle(tmp_path / "tiny")
    before = tree(bundle.folder)

    def fail() -> None:
        with bundle.writing(WEIGHTS, made_by="a test") as path:
            path.write_bytes(partial)
            raise RuntimeError("no space left")

    with pytest.raises(RuntimeError, match="no space left"):
        fail()

    assert tree(bundle.folder) == before


def test_a_writer_that_wrote_nothing_is_an_error(tmp_path: Path) -> None:
    bundle = small_bundle(tmp_path / "tiny")
    before = tree(bundle.folder)

    with pytest.raises(FileNotFoundError), bundle.writing(WEIGHTS, made_by="a test"):
        pass

    assert tree(bundle.folder) == before


def test_the_old_file_stays_until_the_new_file_is_complete(tmp_path: Path) -> None:
    target = tmp_path / "report.json"
    write_atomic(target, b"old")

    with atomic_path(target) as temporary:
        temporary.write_bytes(b"new")
        assert target.read_bytes() == b"old"
        # Tools such as torchvision choose the format by the file name's extension.
        assert (temporary.parent, temporary.suffix) == (tmp_path, ".json")

    assert tree(tmp_path) == {"report.json": b"new"}


def test_concurrent_writers_of_different_files_lose_none(tmp_path: Path) -> None:
    folder = small_bundle(tmp_path / "tiny").folder
    names = [f"report/{index}.txt" for index in range(12)]

    together(*(writer(folder, name, name.encode()) for name in names))

    bundle = Bundle.open(folder)
    assert {name: bundle.read(name) for name in names} == {name: name.encode() for name in names}
    assert sorted(tree(folder)) == sorted([*names, WEIGHTS, "manifest.json"])


def test_concurrent_writers_of_one_file_leave_a_matching_record(tmp_path: Path) -> None:
    folder = small_bundle(tmp_path / "tiny").folder
    contents = [bytes([index]) * 50_000 for index in range(4)]

    for _ in range(8):
        together(*(writer(folder, "x", data) for data in contents))
        assert Bundle.open(folder).read("x") in contents


def test_a_slow_writer_does_not_block_another(tmp_path: Path) -> None:
    folder = small_bundle(tmp_path / "tiny").folder

    with Bundle.open(folder).writing("long", made_by="a test") as path:
        Bundle.open(folder).write("short", b"1", made_by="a test")
        path.write_bytes(b"2")

    assert {"long", "short"} <= set(Bundle.open(folder).manifest.files)


@pytest.mark.parametrize("name", ["../x", "/tmp/x", "a/../../x", "a\\x", "", "a\0b"])
def test_nothing_is_written_outside(tmp_path: Path, name: str) -> None:
    bundle = small_bundle(tmp_path / "tiny")
    before = tree(tmp_path)

    with pytest.raises(OutsideError, match="leads outside the bundle"):
        bundle.write(name, b"1", made_by="a test")

    assert tree(tmp_path) == before


def test_nothing_is_written_through_a_link(tmp_path: Path) -> None:
    bundle = small_bundle(tmp_path / "tiny")
    (tmp_path / "elsewhere").mkdir()
    (bundle.folder / "report").symlink_to(tmp_path / "elsewhere")

    with pytest.raises(SymlinkError, match="report is a symbolic link"):
        bundle.write("report/x", b"1", made_by="a test")

    assert list((tmp_path / "elsewhere").iterdir()) == []


def test_a_file_is_stale_after_its_input_changed(tmp_path: Path) -> None:
    bundle = small_bundle(tmp_path / "tiny")
    bundle.write("model.fp32.onnx", b"", made_by="`export it`", made_from=[WEIGHTS])
    bundle.write("parity/x.json", b"{}", made_by="`prove it`", made_from=[WEIGHTS, "model.fp32.onnx"])
    assert bundle.has("model.fp32.onnx")

    bundle.write(WEIGHTS, b"other weights", made_by="a test")

    for name, command in (("model.fp32.onnx", "`export it`"), ("parity/x.json", "`prove it`")):
        assert not bundle.has(name)
        with pytest.raises(StaleError, match=f"another {WEIGHTS} than the present one: make it again with {command}"):
            bundle.fresh(name)
    bundle.write(WEIGHTS, b"weights", made_by="a test")
    assert bundle.has("parity/x.json")


def test_a_file_whose_input_is_missing_is_stale(tmp_path: Path) -> None:
    bundle = small_bundle(tmp_path / "tiny")
    bundle.write("x", b"", made_by="a test", made_from=[WEIGHTS])
    edit_manifest(bundle.folder, lambda values: values["files"].pop(WEIGHTS))

    with pytest.raises(StaleError):
        Bundle.open(bundle.folder).fresh("x")


@pytest.mark.parametrize(
    ("name", "command"),
    [
        ("model.fp16.onnx", "python -m export.onnx --model tiny --precision fp16"),
        ("parity/openvino-bf16.json", "python -m export.parity --model tiny --variant openvino-bf16"),
        ("README.md", "python -m export --model tiny"),
    ],
)
def test_an_unlisted_file_names_the_command_that_makes_it(tmp_path: Path, name: str, command: str) -> None:
    bundle = small_bundle(tmp_path / "tiny")
    (bundle.folder / name).parent.mkdir(exist_ok=True)
    (bundle.folder / name).write_text("exists, but is not listed")

    with pytest.raises(FileMissingError) as caught:
        bundle.read(name)

    assert (
        str(caught.value)
        == f"the bundle {bundle.folder} has no {name}: make it with `HALFTONE_ARTIFACTS={tmp_path} {command}`"
    )


def test_a_change_of_any_byte_is_detected(tmp_path: Path) -> None:
    bundle = small_bundle(tmp_path / "tiny")

    for index in range(7):
        damaged = bytearray(b"weights")
        damaged[index] ^= 1
        (bundle.folder / WEIGHTS).write_bytes(damaged)
        with pytest.raises(HashMismatchError, match=rf"{WEIGHTS}.*make it again with `make weights`"):
            bundle.read(WEIGHTS)


def test_a_folder_in_place_of_a_file_is_a_missing_file(tmp_path: Path) -> None:
    bundle = small_bundle(tmp_path / "tiny")
    (bundle.folder / WEIGHTS).unlink()
    (bundle.folder / WEIGHTS).mkdir()

    with pytest.raises(FileMissingError):
        Bundle.open(bundle.folder)


def test_a_manifest_is_immutable() -> None:
    one = manifest()

    with pytest.raises(AttributeError):
        one.name = "other"  # type: ignore[misc]
    assert Manifest.from_json(one.to_json()) == one


@pytest.mark.parametrize("path", ["my\nphotos\x1b[2J", "my\u00a0photos", "x" * 5000])
def test_a_command_with_any_path_can_be_recorded(tmp_path: Path, path: str) -> None:
    bundle = small_bundle(tmp_path / "tiny")

    bundle.write("x", b"", made_by=f"`make {path}`")

    made_by = Bundle.open(bundle.folder).manifest.files["x"].made_by
    assert made_by.startswith("`make ")
    assert made_by.isprintable()
