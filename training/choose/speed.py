"""Served speed of candidates on this machine, before any training: with random weights, which change no speed.

The figures stay in the file `.speeds.json` of the folder of bundles, for machines and libraries of the same kind.
"""

from __future__ import annotations

import json
import tempfile
from collections.abc import Callable
from dataclasses import asdict, dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from models.common.files import write_atomic
from models.common.host import cores, host
from models.spec import Architecture

FILE_NAME = ".speeds.json"
LIBRARIES = ("onnxruntime", "openvino", "torch")
ROUNDS, SECONDS = 2, 0.3


@dataclass(frozen=True, kw_only=True)
class Speed:
    """Speed of a network in its fastest variant of full precision, without decoding and HTTP."""

    variant: str

    milliseconds: float
    """Of one image on one core, all cores being busy with others."""

    images_per_second: float
    """Of single images, one thread per core."""

    megabytes: float
    """Of the file that serves."""


@dataclass(frozen=True, kw_only=True)
class Budget:
    """Limits on what serves; None for no limit."""

    p99_ms: float | None
    rate: float | None
    size_mb: float | None

    def broken_by(self, *, milliseconds: float, images_per_second: float, megabytes: float) -> str | None:
        """Return which limit is broken, in words; None if none is."""
        if self.p99_ms is not None and milliseconds > self.p99_ms:
            return f"one picture takes {milliseconds:.1f} ms, over --p99-ms {self.p99_ms:g}"
        if self.rate is not None and images_per_second < self.rate:
            return f"{images_per_second:.0f} pictures/s, below --rate {self.rate:g}"
        if self.size_mb is not None and megabytes > self.size_mb:
            return f"{megabytes:.1f} MB, over --size-mb {self.size_mb:g}"
        return None


def measured(network: Architecture, size: int, folder: Path, *, say: Callable[[str], None]) -> Speed:
    """Return the speed of a network, from the folder's file or measured now.

    Args:
        network: the candidate.
        size: side of its input in pixels.
        folder: of the bundles.
        say: gets a line before a measurement.

    Raises:
        HalftoneError: the network can't be exported.
    """
    file, key, here = folder / FILE_NAME, f"{network.name} {size}", _here()
    known = _known(file)
    if known.get("here") != here:
        known = {"here": here, "speeds": {}}
    if key not in known["speeds"]:
        say(f"measuring the served speed of {network.name} at {size} px")
        # Imported here: the libraries that export take seconds to load.
        from export.benchmark.families import measure_network

        with tempfile.TemporaryDirectory() as temporary:
            row = measure_network(network, Path(temporary), size=size, rounds=ROUNDS, seconds=SECONDS)
        speed = Speed(
            variant=row.variant,
            milliseconds=1000 * cores() / row.served_images_per_second,
            images_per_second=row.served_images_per_second,
            megabytes=row.megabytes,
        )
        known["speeds"][key] = asdict(speed)
        write_atomic(file, f"{json.dumps(known, indent=1)}\n".encode())
    return Speed(**known["speeds"][key])


def _here() -> dict[str, Any]:
    """Describe machine and libraries."""
    found: dict[str, Any] = json.loads(json.dumps(host()))
    for library in LIBRARIES:
        try:
            found[library] = version(library)
        except PackageNotFoundError:
            found[library] = None
    return found


def _known(file: Path) -> dict[str, Any]:
    """Return the content of the file; nothing if it is missing or damaged."""
    try:
        known = json.loads(file.read_text())
        return known if isinstance(known, dict) and isinstance(known["speeds"], dict) else {}
    except (OSError, ValueError, KeyError):
        return {}
