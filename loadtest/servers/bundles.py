"""Bundles for swaps: valid ones whose version is visible in the probabilities, and ten kinds of invalid ones.

A bundle's temperature divides its logits. It is part of the version and can be computed from the probabilities of a
response, so one proven bundle yields any number of versions, and a response shows which version computed it.
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
    """Copy of a bundle that is rewritten for every swap.

    Args:
        pristine: folder of the proven bundle, which stays unchanged.
        folder: folder of the copy.
    """

    def __init__(self, pristine: Path, folder: Path) -> None:
        self._pristine = pristine
        self.folder = folder
        self._manifest: dict[str, Any] = json.loads((pristine / MANIFEST).read_text())

    def temperature(self, number: int) -> float:
        """Return the temperature of version `number`."""
        return float(self._manifest["temperature"]) * (1 + STEP * number)

    def write(self, number: int) -> None:
        """Replace the folder's content with version `number`."""
        shutil.rmtree(self.folder, ignore_errors=True)
        # Hard links suffice: every later change writes a new file.
        shutil.copytree(self._pristine, self.folder, copy_function=_link)
        self.edit(lambda manifest: manifest.update(temperature=self.temperature(number)))

    def edit(self, change: Callable[[dict[str, Any]], object]) -> None:
        """Apply `change` to the manifest."""
        manifest = json.loads((self.folder / MANIFEST).read_text())
        change(manifest)
        self.put(MANIFEST, json.dumps(manifest).encode())

    def put(self, name: str, data: bytes) -> None:
        """Replace the content of a file."""
        temporary = self.folder / ".new"
        temporary.write_bytes(data)
        temporary.replace(self.folder / name)

    def data(self, name: str) -> bytes:
        """Return the content of a file."""
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


def _reverse_labels(bundle: Bundle) -> None:
    bundle.edit(lambda manifest: manifest.update(labels=manifest["labels"][::-1]))


def _make_unsure(bundle: Bundle) -> None:
    bundle.edit(lambda manifest: manifest.update(temperature=UNSURE * manifest["temperature"]))


UNSURE = 2.0
"""Factor of the temperature that makes a version less sure of every picture."""

FAULTY: dict[str, Callable[[Bundle], object]] = {
    "labels": _reverse_labels,
    "failing": lambda bundle: None,
    "nan": lambda bundle: None,
    "slower": lambda bundle: None,
    "unsure": _make_unsure,
}
"""Kind of a faulty candidate, which ends its bundle's name, to the change that makes it. It can be loaded; without a
change it is faulty by `loadtest.peers.halftone_faulty`."""

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
"""Name of each kind of invalid bundle to the change that makes it."""
