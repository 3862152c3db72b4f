"""Bundles for swaps: good ones that differ by their version and show it in their answers, and bad ones of ten kinds.

A bundle's temperature divides its logits: it belongs to the version, and can be read from the probabilities of an
answer. So one proven bundle becomes any number of versions, and an answer tells which of them made it.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

MANIFEST = "manifest.json"
GRAPH = "model.fp32.onnx"
STEP = 0.02


class Bundle:
    """A copy of a bundle that is written anew for every swap.

    Args:
        pristine: the proven bundle; nothing in it is changed.
        folder: of the copy.
    """

    def __init__(self, pristine: Path, folder: Path) -> None:
        self._pristine = pristine
        self.folder = folder
        self._manifest: dict[str, Any] = json.loads((pristine / MANIFEST).read_text())

    def temperature(self, number: int) -> float:
        """Of the version of that number."""
        return float(self._manifest["temperature"]) * (1 + STEP * number)

    def write(self, number: int) -> None:
        """Make the folder hold the version of that number, whatever it held."""
        shutil.rmtree(self.folder, ignore_errors=True)
        # Links to the same content: every change below writes a new file.
        shutil.copytree(self._pristine, self.folder, copy_function=_link)
        self.edit(lambda manifest: manifest.update(temperature=self.temperature(number)))

    def edit(self, change: Callable[[dict[str, Any]], object]) -> None:
        """Change the manifest."""
        manifest = json.loads((self.folder / MANIFEST).read_text())
        change(manifest)
        self.put(MANIFEST, json.dumps(manifest).encode())

    def put(self, name: str, data: bytes) -> None:
        """Give a file another content."""
        temporary = self.folder / ".new"
        temporary.write_bytes(data)
        temporary.replace(self.folder / name)

    def data(self, name: str) -> bytes:
        """A file's content."""
        return (self.folder / name).read_bytes()


def _link(source: str, target: str) -> None:
    try:
        os.link(source, target)
    except OSError:
        shutil.copy2(source, target)


def _flipped(data: bytes) -> bytes:
    middle = len(data) // 2
    return data[:middle] + bytes([data[middle] ^ 1]) + data[middle + 1 :]


def _link_away(bundle: Bundle) -> None:
    (bundle.folder / GRAPH).rename(bundle.folder / "elsewhere")
    (bundle.folder / GRAPH).symlink_to("elsewhere")


def _edit_records(bundle: Bundle) -> None:
    for record in (bundle.folder / "parity").iterdir():
        bundle.put(f"parity/{record.name}", record.read_bytes().replace(b'"top1_agreement"', b'"top2_agreement"'))


def _path_outside(bundle: Bundle) -> None:
    bundle.edit(lambda manifest: manifest["files"].update({"../outside": manifest["files"]["README.md"]}))


def _no_records(bundle: Bundle) -> None:
    bundle.edit(
        lambda manifest: [manifest["files"].pop(name) for name in list(manifest["files"]) if name.startswith("parity/")]
    )


BAD: dict[str, Callable[[Bundle], object]] = {
    "graph cut short": lambda bundle: bundle.put(GRAPH, bundle.data(GRAPH)[:-1000]),
    "one bit of the graph flipped": lambda bundle: bundle.put(GRAPH, _flipped(bundle.data(GRAPH))),
    "graph missing": lambda bundle: (bundle.folder / GRAPH).unlink(),
    "graph is a link": _link_away,
    "manifest cut short": lambda bundle: bundle.put(MANIFEST, bundle.data(MANIFEST)[:-100]),
    "manifest of another schema": lambda bundle: bundle.edit(lambda manifest: manifest.update(schema=2)),
    "proofs edited": _edit_records,
    "proofs not listed": _no_records,
    "path outside the bundle": _path_outside,
    "untrained": lambda bundle: bundle.edit(lambda manifest: manifest.update(trained=False)),
}
"""What is done to a good bundle, by name."""
