"""Ways to tamper with a bundle: each changes a folder that holds a proven one."""

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
    """Another content, which the manifest does not know of."""
    return lambda folder: (folder / name).write_bytes(change((folder / name).read_bytes()))


def in_place_of(name: str, put: Callable[[Path], object]) -> Tampering:
    """Something else in a file's place."""

    def tamper(folder: Path) -> None:
        path = folder / name
        if path.is_dir():
            shutil.rmtree(path)
        else:
            path.unlink()
        put(path)

    return tamper


def manifest(change: Callable[[dict[str, Any]], object]) -> Tampering:
    """Another manifest."""
    return lambda folder: edit_manifest(folder, change)


def entry(**values: object) -> Tampering:
    """Another entry of the graph in the manifest."""
    return manifest(lambda all_: all_["files"][GRAPH].update(values))


def named(name: str) -> Tampering:
    """The graph is listed under another name."""
    return manifest(lambda all_: all_["files"].update({name: all_["files"].pop(GRAPH)}))


def also_named(name: str) -> Tampering:
    """A further file is listed."""
    return manifest(lambda all_: all_["files"].update({name: all_["files"][CARD]}))


def text(old: str, new: str) -> Tampering:
    """The manifest's text is edited."""

    def tamper(folder: Path) -> None:
        path = folder / "manifest.json"
        before = path.read_text()
        assert old in before
        path.write_text(before.replace(old, new, 1))

    return tamper


def raw(data: bytes) -> Tampering:
    """The manifest is something else."""
    return lambda folder: (folder / "manifest.json").write_bytes(data)


def recoded(encoding: str) -> Tampering:
    """The manifest is in another encoding."""
    return lambda folder: (folder / "manifest.json").write_bytes(
        (folder / "manifest.json").read_text().encode(encoding)
    )


def record(**values: object) -> Tampering:
    """Another parity record with its right hash."""
    return lambda folder: listed(
        folder, RECORD, json.dumps(json.loads((folder / RECORD).read_text()) | values).encode()
    )


def record_text(old: str, new: str) -> Tampering:
    """The parity record's text is edited, and its hash is right."""

    def tamper(folder: Path) -> None:
        before = (folder / RECORD).read_text()
        assert old in before
        listed(folder, RECORD, before.replace(old, new, 1).encode())

    return tamper


def record_of_another_variant(folder: Path) -> None:
    """The record of double-fp16 is a copy of double-fp32's, and the only one."""
    data = (folder / RECORD).read_bytes()
    (folder / "parity" / "double-fp16.json").write_bytes(data)
    edit_manifest(folder, lambda all_: all_["files"].update({"parity/double-fp16.json": all_["files"].pop(RECORD)}))


def proved(folder: Path, graph: bytes) -> None:
    """Put a graph there with everything that is said about it."""
    listed(folder, GRAPH, graph)
    record(source_sha256=sha256(graph))(folder)


def external(location: str) -> Tampering:
    """The graph keeps a tensor in another file, and everything that is said about the graph is right."""

    def tamper(folder: Path) -> None:
        model = onnx.load_from_string((folder / GRAPH).read_bytes())
        tensor = model.graph.initializer[0]
        tensor.ClearField("raw_data")
        tensor.data_location = onnx.TensorProto.EXTERNAL
        tensor.external_data.add(key="location", value=location)
        proved(folder, model.SerializeToString())

    return tamper


def hidden_external(folder: Path) -> None:
    """As `external`, with a field number that some readers cut to 32 bits: 5-byte tags of the graph's field 7."""
    external("../outside.bin")(folder)
    data = (folder / GRAPH).read_bytes()
    place = data.index(b"\x3a")
    # Field 7, length-delimited (0x3a), with a bit above the 32nd.
    proved(folder, data[:place] + b"\xba\x80\x80\x80\x10" + data[place + 1 :])


def torch_file(path: Path) -> None:
    """A zip archive with a pickle in it."""
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("archive/data.pkl", bomb())


class _Bomb:
    def __reduce__(self) -> Any:
        return (os.system, ("touch exploded",))


def bomb() -> bytes:
    """A pickle that runs a command when it is loaded."""
    return pickle.dumps(_Bomb())


def outside(folder: Path) -> Path:
    """A file beside the bundle, which nothing may open."""
    path = folder.parent / "outside.bin"
    path.write_bytes(b"secret")
    return path


def moved_and_linked(name: str) -> Tampering:
    """A file or folder is moved out of the bundle, and a link is in its place."""

    def tamper(folder: Path) -> None:
        target = folder.parent / "moved"
        shutil.move(folder / name, target)
        (folder / name).symlink_to(target)

    return tamper


def linked_inside(folder: Path) -> None:
    """The graph is a link to another file of the bundle."""
    shutil.move(folder / GRAPH, folder / "other")
    (folder / GRAPH).symlink_to("other")


def swapped(one: str, other: str) -> Tampering:
    """Two files change places."""

    def tamper(folder: Path) -> None:
        first, second = (folder / one).read_bytes(), (folder / other).read_bytes()
        (folder / one).write_bytes(second)
        (folder / other).write_bytes(first)

    return tamper


def bind(path: Path) -> None:
    """A Unix socket."""
    here = Path.cwd()
    # Its address may have a hundred characters only.
    os.chdir(path.parent)
    try:
        with socket.socket(socket.AF_UNIX) as listener:
            listener.bind(path.name)
    finally:
        os.chdir(here)


def sparse(folder: Path) -> None:
    """The graph claims a terabyte."""
    with (folder / GRAPH).open("r+b") as file:
        file.truncate(2**40)


def huge(folder: Path) -> None:
    """A manifest that fills the memory."""
    with (folder / "manifest.json").open("r+b") as file:
        file.truncate(2**38)


TAMPERINGS: dict[str, Tampering] = {
    # Contents that the manifest does not know of.
    "graph cut short": content(GRAPH, lambda data: data[:-1]),
    "graph extended": content(GRAPH, lambda data: data + b"\0"),
    "graph emptied": content(GRAPH, lambda data: b""),
    "one bit of the graph flipped": content(GRAPH, lambda data: data[:-1] + bytes([data[-1] ^ 1])),
    "graph of a terabyte": sparse,
    "pickle named as the graph": content(GRAPH, lambda data: bomb()),
    "torch file named as the graph": in_place_of(GRAPH, torch_file),
    "weights cut short": content(WEIGHTS, lambda data: data[:-1]),
    "weights extended": content(WEIGHTS, lambda data: data + b"\0"),
    "one bit of the weights flipped": content(WEIGHTS, lambda data: bytes([data[0] ^ 1]) + data[1:]),
    "pickle named as the weights": content(WEIGHTS, lambda data: bomb()),
    "torch file named as the weights": in_place_of(WEIGHTS, torch_file),
    "graph and weights swapped": swapped(GRAPH, WEIGHTS),
    "record cut short": content(RECORD, lambda data: data[:-5]),
    "figure of the record edited": content(RECORD, lambda data: data.replace(b"320", b"999")),
    "model card edited": content(CARD, lambda data: data.upper()),
    # Something else than a file.
    "graph missing": in_place_of(GRAPH, lambda path: None),
    "weights missing": in_place_of(WEIGHTS, lambda path: None),
    "record missing": in_place_of(RECORD, lambda path: None),
    "folder of records missing": in_place_of("parity", lambda path: None),
    "graph is a folder": in_place_of(GRAPH, lambda path: path.mkdir()),
    "graph is a pipe": in_place_of(GRAPH, os.mkfifo),
    "graph is a socket": in_place_of(GRAPH, bind),
    "graph is a link to a device": in_place_of(GRAPH, lambda path: path.symlink_to("/dev/zero")),
    "graph is a link to nothing": in_place_of(GRAPH, lambda path: path.symlink_to("nothing")),
    "graph is a link to itself": in_place_of(GRAPH, lambda path: path.symlink_to(GRAPH)),
    "graph is a link out of the bundle": moved_and_linked(GRAPH),
    "graph is a link within the bundle": linked_inside,
    "weights are a link out of the bundle": moved_and_linked(WEIGHTS),
    "folder of records is a link": moved_and_linked("parity"),
    "folder of records is a file": in_place_of("parity", lambda path: path.write_bytes(b"")),
    "manifest missing": in_place_of("manifest.json", lambda path: None),
    "manifest is a folder": in_place_of("manifest.json", lambda path: path.mkdir()),
    "manifest is a pipe": in_place_of("manifest.json", os.mkfifo),
    "manifest is a link": moved_and_linked("manifest.json"),
    # Manifests that are none.
    "manifest empty": raw(b""),
    "manifest of another type": raw(b"[]"),
    "manifest cut short": content("manifest.json", lambda data: data[:-5]),
    "manifest with something after it": content("manifest.json", lambda data: data + b"{}"),
    "manifest nested without end": raw(b'{"files":' * 100_000),
    "manifest of 256 GiB": huge,
    "manifest is a pickle": raw(bomb()),
    "manifest not UTF-8": content("manifest.json", lambda data: data.replace(b"a test", b"\xff test")),
    "manifest in UTF-16": recoded("utf-16"),
    "manifest with a byte order mark": recoded("utf-8-sig"),
    "key twice in the manifest": text('"trained": true', '"trained": false, "trained": true'),
    "file twice in the manifest": text(f'"{GRAPH}": ', f'"{GRAPH}": {{}}, "{GRAPH}": '),
    "NaN in the manifest": manifest(lambda all_: all_.update(temperature=float("nan"))),
    "NaN in the training's figures": manifest(lambda all_: all_.update(training={"loss": float("nan")})),
    "infinity in the manifest": text('"temperature": 1.0', '"temperature": 1e999'),
    # Manifests of another form.
    "unknown schema": manifest(lambda all_: all_.update(schema=2)),
    "schema that only equals 1": manifest(lambda all_: all_.update(schema=True)),
    "schema missing": manifest(lambda all_: all_.pop("schema")),
    "unknown field": manifest(lambda all_: all_.update(hook="import os")),
    "missing field": manifest(lambda all_: all_.pop("architecture")),
    "labels of another type": manifest(lambda all_: all_.update(labels="cat,dog")),
    "labels twice": manifest(lambda all_: all_.update(labels=["cat", "cat"])),
    "trained is a text": manifest(lambda all_: all_.update(trained="true")),
    "untrained": manifest(lambda all_: all_.update(trained=False)),
    "input of no size": manifest(lambda all_: all_["input"].update(size=0)),
    "input of another type": manifest(lambda all_: all_.update(input=[32])),
    "files of another type": manifest(lambda all_: all_.update(files=list(all_["files"]))),
    # Names of files.
    "path to the folder above": named("../outside.bin"),
    "path through the folder above": named(f"parity/../../tiny/{GRAPH}"),
    "absolute path": named("/etc/hostname"),
    "path with a backslash": named("..\\outside.bin"),
    "path with a null byte": named(f"{GRAPH}\0.png"),
    "path with a line feed": also_named("README.md\n"),
    "empty path": also_named(""),
    "path of the folder itself": also_named("."),
    "path written otherwise": also_named("./README.md"),
    "path with a double slash": also_named("parity//double-fp32.json"),
    "another case of a name": also_named("readme.MD"),
    "the graph in another case": named("Model.FP32.onnx"),
    "manifest lists itself": also_named("manifest.json"),
    "further file outside": also_named("../outside.bin"),
    # What is said about the graph.
    "hash too short": entry(sha256="abc"),
    "hash in capitals": manifest(
        lambda all_: all_["files"][GRAPH].update(sha256=all_["files"][GRAPH]["sha256"].upper())
    ),
    "hash of another content": entry(sha256="0" * 64),
    "size too large": manifest(lambda all_: all_["files"][GRAPH].update(size=all_["files"][GRAPH]["size"] + 1)),
    "size negative": entry(size=-1),
    "size is true": entry(size=True),
    "made from other weights": entry(made_from={WEIGHTS: "0" * 64}),
    "made from a file that is not there": entry(made_from={"nothing": "0" * 64}),
    "graph replaced with its right hash": lambda folder: listed(folder, GRAPH, (folder / GRAPH).read_bytes() + b"\0"),
    "weights replaced with their right hash": lambda folder: listed(folder, WEIGHTS, b"others!"),
    # Records with their right hash.
    "record of another variant": record_of_another_variant,
    "record that names another variant": record(variant="double-fp16"),
    "record that failed": record(verdict="FAILED", reasons=["too far off"]),
    "record that passed for reasons": record(reasons=["too far off"]),
    "record with another verdict": record(verdict="passed"),
    "record of an unknown schema": record(schema=2),
    "record with an unknown field": record(hook="import os"),
    "record with a key twice": record_text('"verdict": "PASSED"', '"verdict": "FAILED", "verdict": "PASSED"'),
    "record with NaN": record_text("320", "NaN"),
    "record of another runtime": record(runtime={}),
    "record for another graph": record(source_sha256="0" * 64),
    "record for other weights": record(weights_sha256="0" * 64),
    "record for another file": lambda folder: record(source=CARD, source_sha256=sha256((folder / CARD).read_bytes()))(
        folder
    ),
    "record is a list": lambda folder: listed(folder, RECORD, b"[]"),
    "record is a pickle": lambda folder: listed(folder, RECORD, bomb()),
    "record not listed": manifest(lambda all_: all_["files"].pop(RECORD)),
    # Graphs that read elsewhere.
    "external data outside": external("../outside.bin"),
    "external data at an absolute path": external("/etc/hostname"),
    "external data that is not listed": external("tensor.bin"),
    "external data within the bundle": external(WEIGHTS),
    "external data behind an odd field number": hidden_external,
    "no graph at all": lambda folder: proved(folder, b"\xff" * 64),
}
"""Every kind, by name."""
