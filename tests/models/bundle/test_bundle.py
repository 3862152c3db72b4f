"""Test that every kind of damage to a bundle has its own error, which names the file and the repair."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import onnx
import pytest

from models.bundle.bundle import Bundle
from models.bundle.errors import (
    BundleError,
    BundleMissingError,
    FileMissingError,
    HashMismatchError,
    OutsideError,
    SchemaError,
    StaleError,
    SymlinkError,
)
from models.common.files import sha256

NAME = "efficientnet_lite0"
GRAPH = "model.fp32.onnx"


@pytest.fixture
def folder(artifacts: Path, tmp_path: Path) -> Path:
    """Copy the default bundle, so that a test can damage it."""
    shutil.copytree(artifacts / NAME, tmp_path / NAME)
    return tmp_path / NAME


def edit(folder: Path, change: Callable[[dict[str, Any]], object]) -> None:
    manifest = json.loads((folder / "manifest.json").read_text())
    change(manifest)
    (folder / "manifest.json").write_text(json.dumps(manifest))


def rename(folder: Path, name: str) -> None:
    """List the graph under another name."""
    edit(folder, lambda manifest: manifest["files"].update({name: manifest["files"].pop(GRAPH)}))


def test_a_bundle_reads_back_what_was_written(folder: Path) -> None:
    bundle = Bundle.open(folder)
    bundle.write("report/x.txt", b"hello", made_by="a test", made_from=["weights.safetensors"])

    assert Bundle.open(folder).read("report/x.txt") == b"hello"
    assert {Bundle.open(folder).has(name) for name in bundle.manifest.files} == {True}


def test_a_failed_write_changes_nothing(folder: Path) -> None:
    bundle, before = Bundle.open(folder), sorted(folder.rglob("*"))
    graph = bundle.read(GRAPH)

    with pytest.raises(ZeroDivisionError), bundle.writing(GRAPH, made_by="a test") as path:
        path.write_bytes(bytes(1 // 0))

    assert sorted(folder.rglob("*")) == before
    assert Bundle.open(folder).read(GRAPH) == graph


def test_two_writers_lose_nothing(folder: Path) -> None:
    one, other = Bundle.open(folder), Bundle.open(folder)
    one.write("a", b"1", made_by="a test")
    other.write("b", b"2", made_by="a test")

    assert {"a", "b"} <= set(Bundle.open(folder).manifest.files)


def test_no_bundle(tmp_path: Path) -> None:
    with pytest.raises(BundleMissingError, match=r"python -m export --model nothing"):
        Bundle.open(tmp_path / "nothing")


@pytest.mark.parametrize(
    "change",
    [
        lambda manifest: manifest.update(schema=99),
        lambda manifest: manifest.pop("labels"),
        lambda manifest: manifest.update(labels=["a", "a"]),
        lambda manifest: manifest.update(labels=[]),
        lambda manifest: manifest.update(labels=["a\nb", *manifest["labels"][1:]]),
        lambda manifest: manifest.update(label_ids=["a\x1b[31m", *manifest["label_ids"][1:]]),
        lambda manifest: manifest.update(name="a\x9bb"),
        lambda manifest: manifest.update(source="a\nerror: b"),
        lambda manifest: manifest.update(temperature=-1),
        lambda manifest: manifest.update(surprise=1),
        lambda manifest: manifest["input"].update(size="big"),
        lambda manifest: manifest["input"].update(std=[0, 1, 1]),
        lambda manifest: manifest["files"][GRAPH].update(sha256="abc"),
        lambda manifest: manifest["files"][GRAPH].update(size=-1),
        lambda manifest: manifest.update(files=[]),
    ],
)
def test_a_manifest_with_an_invalid_field(folder: Path, change: Callable[[dict[str, Any]], object]) -> None:
    edit(folder, change)

    with pytest.raises(SchemaError, match=r"manifest\.json can't be used.*python -m export"):
        Bundle.open(folder)


@pytest.mark.parametrize("text", ["", "{", "[]", "null", "[" * 100_000])
def test_a_manifest_that_is_not_a_json_object(folder: Path, text: str) -> None:
    (folder / "manifest.json").write_text(text)

    with pytest.raises(SchemaError):
        Bundle.open(folder)


def test_a_missing_file(folder: Path) -> None:
    (folder / GRAPH).unlink()

    bundle = Bundle.open(folder)

    with pytest.raises(FileMissingError, match=r"model\.fp32\.onnx is missing.*python -m export --model"):
        bundle.read(GRAPH)
    assert bundle.read("model.fp16.onnx")


def test_missing_weights(folder: Path) -> None:
    (folder / "weights.safetensors").unlink()

    with pytest.raises(FileMissingError, match=r"weights\.safetensors is missing: remove .*, then make it again with"):
        Bundle.open(folder)


def test_changed_content(folder: Path) -> None:
    with (folder / GRAPH).open("ab") as file:
        file.write(b"\0")

    with pytest.raises(HashMismatchError, match=r"model\.fp32\.onnx.*python -m export --model"):
        Bundle.open(folder).read(GRAPH)


def test_repair_commands_name_the_folder(folder: Path) -> None:
    copy = Bundle.open(folder.rename(folder.with_name("mine")))
    copy.write("weights.safetensors", b"others", made_by="a test")
    (copy.folder / "model.fp16.onnx").unlink()

    there = f"`HALFTONE_ARTIFACTS={folder.parent} python -m export"
    with pytest.raises(StaleError, match=rf"{there}\.onnx --model mine --precision fp32`"):
        copy.fresh(GRAPH)
    with pytest.raises(FileMissingError, match=f"{there} --model mine`"):
        copy.read("model.fp16.onnx")
    with pytest.raises(FileMissingError, match=rf"{there}\.parity --model mine --variant x`"):
        copy.read("parity/x.json")


def test_repair_commands_name_no_folder_of_bundles_where_they_need_none(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(folder.parent)
    (folder.parent / "artifacts").mkdir()
    bundle = Bundle.open(folder.rename(folder.parent / "artifacts" / "mine"))

    with pytest.raises(FileMissingError, match=r"`python -m export\.parity --model mine --variant x`"):
        bundle.read("parity/x.json")


def test_damaged_files_are_dropped_with_what_belongs_to_them(folder: Path) -> None:
    bundle = Bundle.open(folder)
    (folder / "speed.json").write_text("{}")
    (folder / "README.md").unlink()

    assert sorted(bundle.damaged()) == ["README.md", "speed.json"]
    assert bundle.drop_damaged([("speed.json", "model.fp16.onnx"), (GRAPH,)]) == ["model.fp16.onnx", "speed.json"]
    assert sorted(Bundle.open(folder).damaged()) == ["README.md"]
    assert GRAPH in Bundle.open(folder).manifest.files
    assert not {"model.fp16.onnx", "speed.json"} & set(Bundle.open(folder).manifest.files)


@pytest.mark.parametrize("name", ["../x.onnx", "/etc/hostname", "a/../../x", "..\\x", "", "a\0b"])
def test_a_path_outside(folder: Path, name: str) -> None:
    rename(folder, name)

    with pytest.raises(OutsideError, match="leads outside"):
        Bundle.open(folder)


def test_a_linked_file(folder: Path, tmp_path: Path) -> None:
    shutil.move(folder / GRAPH, tmp_path / "elsewhere")
    (folder / GRAPH).symlink_to(tmp_path / "elsewhere")

    with pytest.raises(SymlinkError, match=r"model\.fp32\.onnx is a symbolic link"):
        Bundle.open(folder)


def test_a_linked_folder(folder: Path, tmp_path: Path) -> None:
    shutil.move(folder / "parity", tmp_path / "elsewhere")
    (folder / "parity").symlink_to(tmp_path / "elsewhere")

    with pytest.raises(SymlinkError, match="parity is a symbolic link"):
        Bundle.open(folder)


def test_a_linked_manifest(folder: Path, tmp_path: Path) -> None:
    shutil.move(folder / "manifest.json", tmp_path / "elsewhere")
    (folder / "manifest.json").symlink_to(tmp_path / "elsewhere")

    with pytest.raises(SymlinkError):
        Bundle.open(folder)


@pytest.mark.parametrize(
    ("location", "error"),
    [("../secret.bin", OutsideError), ("/etc/hostname", OutsideError), ("unlisted.bin", BundleError)],
)
def test_external_data_outside_the_bundle(folder: Path, location: str, error: type[BundleError]) -> None:
    graph = onnx.load(folder / GRAPH)
    tensor = graph.graph.initializer[0]
    tensor.ClearField("raw_data")
    tensor.data_location = onnx.TensorProto.EXTERNAL
    tensor.external_data.add(key="location", value=location)
    data = graph.SerializeToString()
    (folder / GRAPH).write_bytes(data)
    edit(folder, lambda manifest: manifest["files"][GRAPH].update(sha256=sha256(data), size=len(data)))

    with pytest.raises(error):
        Bundle.open(folder).read(GRAPH)


def test_a_file_made_from_older_weights(folder: Path) -> None:
    Bundle.open(folder).write("weights.safetensors", b"other weights", made_by="a test")

    with pytest.raises(StaleError, match=r"made from another weights\.safetensors.*python -m export\.onnx"):
        Bundle.open(folder).fresh(GRAPH)
