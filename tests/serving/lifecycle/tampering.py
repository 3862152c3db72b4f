"""Operations that tamper with a bundle: each one changes a folder that holds a proven bundle."""

import json
import os
import pickle
import shutil
import socket
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import onnx

from models.common.files import sha256
from tests.samples import edit_manifest

GRAPH, WEIGHTS, RECORD, CARD = "model.fp32.onnx", "weights.safetensors", "parity/double-fp32.json", "README.md"
Tampering = Callable[[Path], object]


def listed(folder: Path, name: str, data: bytes) -> None:
    """Write a file and list it as its author would."""
    (folder / name).write_bytes(data)
    edit_manifest(folder, lambda manifest: manifest["files"][name].update(sha256=sha256(data), size=len(data)))


def content(name: str, change: Callable[[bytes], bytes]) -> Tampering:
    """Change the content of a file, but not the manifest."""
    return lambda folder: (folder / name).write_bytes(change((folder / name).read_bytes()))


def in_place_of(name: str, put: Callable[[Path], object]) -> Tampering:
    """Put something else in the place of a file."""

    def tamper(folder: Path) -> None:
        path = folder / name
        if path.is_dir():
            shutil.rmtree(path)
        else:
            path.unlink()
        put(path)

    return tamper


def manifest(change: Callable[[dict[str, Any]], object]) -> Tampering:
    """Change the manifest."""
    return lambda folder: edit_manifest(folder, change)


def entry(**values: object) -> Tampering:
    """Change the entry of the graph in the manifest."""
    return manifest(lambda all_: all_["files"][GRAPH].update(values))


def named(name: str) -> Tampering:
    """List the graph under another name."""
    return manifest(lambda all_: all_["files"].update({name: all_["files"].pop(GRAPH)}))


def also_named(name: str) -> Tampering:
    """List a further file."""
    return manifest(lambda all_: all_["files"].update({name: all_["files"][CARD]}))


def text(old: str, new: str) -> Tampering:
    """Edit the text of the manifest."""

    def tamper(folder: Path) -> None:
        path = folder / "manifest.json"
        before = path.read_text()
        assert old in before
        path.write_text(before.replace(old, new, 1))

    return tamper


def raw(data: bytes) -> Tampering:
    """Replace the manifest by other bytes."""
    return lambda folder: (folder / "manifest.json").write_bytes(data)


def recoded(encoding: str) -> Tampering:
    """Write the manifest in another encoding."""
    return lambda folder: (folder / "manifest.json").write_bytes(
        (folder / "manifest.json").read_text().encode(encoding)
    )


def record(**values: object) -> Tampering:
    """Change the parity record, and list its right hash."""
    return lambda folder: listed(
        folder, RECORD, json.dumps(json.loads((folder / RECORD).read_text()) | values).encode()
    )


def record_text(old: str, new: str) -> Tampering:
    """Edit the text of the parity record, and list its right hash."""

    def tamper(folder: Path) -> None:
        before = (folder / RECORD).read_text()
        assert old in before
        listed(folder, RECORD, before.replace(old, new, 1).encode())

    return tamper


def record_of_another_variant(folder: Path) -> None:
    """Move the record of double-fp32 to double-fp16."""
    data = (folder / RECORD).read_bytes()
    (folder / "parity" / "double-fp16.json").write_bytes(data)
    edit_manifest(folder, lambda all_: all_["files"].update({"parity/double-fp16.json": all_["files"].pop(RECORD)}))


def proved(folder: Path, graph: bytes) -> None:
    """Write a graph with its right entry in the manifest and in the parity record."""
    listed(folder, GRAPH, graph)
    record(source_sha256=sha256(graph))(folder)


def external(location: str) -> Tampering:
    """Move a tensor of the graph to another file; all entries about the graph are right."""

    def tamper(folder: Path) -> None:
        model = onnx.load_from_string((folder / GRAPH).read_bytes())
        tensor = model.graph.initializer[0]
        tensor.ClearField("raw_data")
        tensor.data_location = onnx.TensorProto.EXTERNAL
        tensor.external_data.add(key="location", value=location)
        proved(folder, model.SerializeToString())

    return tamper


def hidden_external(folder: Path) -> None:
    """Do as `external`, with 5-byte tags of the graph's field 7, a number that some readers truncate to 32 bits."""
    external("../outside.bin")(folder)
    data = (folder / GRAPH).read_bytes()
    place = data.index(b"\x3a")
    # Field 7, length-delimited (0x3a), with a bit above the 32nd.
    proved(folder, data[:place] + b"\xba\x80\x80\x80\x10" + data[place + 1 :])


def torch_file(path: Path) -> None:
    """Write a zip archive that holds a pickle, as torch does."""
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("archive/data.pkl", bomb())


class _Bomb:
    def __reduce__(self) -> Any:
        return (os.system, ("touch exploded",))


def bomb() -> bytes:
    """Return a pickle that runs a command when it is loaded."""
    return pickle.dumps(_Bomb())


def outside(folder: Path) -> Path:
    """Write a file next to the bundle that no test case may open."""
    path = folder.parent / "outside.bin"
    path.write_bytes(b"secret")
    return path


def moved_and_linked(name: str) -> Tampering:
    """Move a file or folder out of the bundle, and put a link in its place."""

    def tamper(folder: Path) -> None:
        target = folder.parent / "moved"
        shutil.move(folder / name, target)
        (folder / name).symlink_to(target)

    return tamper


def folder_linked(folder: Path) -> None:
    """Move the whole bundle out of the folder of bundles, and put a link in its place."""
    target = folder.parent.parent / "moved"
    shutil.move(folder, target)
    folder.symlink_to(target)


def linked_inside(folder: Path) -> None:
    """Make the graph a link to another file of the bundle."""
    shutil.move(folder / GRAPH, folder / "other")
    (folder / GRAPH).symlink_to("other")


def swapped(one: str, other: str) -> Tampering:
    """Exchange the content of two files."""

    def tamper(folder: Path) -> None:
        first, second = (folder / one).read_bytes(), (folder / other).read_bytes()
        (folder / one).write_bytes(second)
        (folder / other).write_bytes(first)

    return tamper


def bind(path: Path) -> None:
    """Create a Unix socket."""
    here = Path.cwd()
    # The address of a Unix socket has at most about 100 characters.
    os.chdir(path.parent)
    try:
        with socket.socket(socket.AF_UNIX) as listener:
            listener.bind(path.name)
    finally:
        os.chdir(here)


def sparse(folder: Path) -> None:
    """Extend the graph to a terabyte."""
    with (folder / GRAPH).open("r+b") as file:
        file.truncate(2**40)


def huge(folder: Path) -> None:
    """Extend the manifest so that it would fill the memory."""
    with (folder / "manifest.json").open("r+b") as file:
        file.truncate(2**38)
