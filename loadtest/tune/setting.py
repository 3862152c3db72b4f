"""Tunable settings of the service, and the proven variants of a bundle."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from loadtest.reporting.cli import CompareError
from loadtest.servers.halftone import no_bundle

PASSED = "PASSED"
_REFERENCE = "torch-fp32"
# Variables of the caller's environment must not leak into a setting that leaves them empty.
_UNSET = dict.fromkeys(
    (
        "HALFTONE_SETTINGS",
        "HALFTONE_VARIANT",
        "HALFTONE_WORKERS",
        "HALFTONE_DECODERS",
        "HALFTONE_THREADS",
        "HALFTONE_BATCH",
    ),
    "",
)


@dataclass(frozen=True, kw_only=True)
class Setting:
    """Configuration of the service; the service decides values that are empty or 0."""

    variant: str = ""
    workers: int = 0
    """Worker processes, which share the cores."""

    threads: int = 0
    """Threads per worker that decode and classify; as many calls of the model run at once."""

    batch: int = 0
    """Largest batch; 0: decided by measured batch costs, 1: no batching."""

    def variables(self) -> dict[str, str]:
        """Return the HALFTONE_* variables of this setting."""
        values = {
            "HALFTONE_VARIANT": self.variant,
            "HALFTONE_WORKERS": self.workers,
            "HALFTONE_THREADS": self.threads,
            "HALFTONE_BATCH": self.batch,
        }
        return {name: str(value) for name, value in values.items() if value}

    def environment(self) -> dict[str, str]:
        """Return the variables of a server with exactly this setting."""
        return _UNSET | self.variables()

    def __str__(self) -> str:
        parts = [
            self.variant,
            f"{self.workers} workers" * bool(self.workers),
            f"{self.threads} threads" * bool(self.threads),
            f"batch {self.batch}" * bool(self.batch),
        ]
        return ", ".join(part for part in parts if part) or "untuned"


UNTUNED = Setting()


def file_environment(path: Path) -> dict[str, str]:
    """Return the variables of a server whose settings come from a file."""
    return _UNSET | {"HALFTONE_SETTINGS": str(path.resolve())}


def artifacts() -> Path:
    """Return the folder of bundles that the service uses."""
    return Path(os.environ.get("HALFTONE_ARTIFACTS") or "artifacts")


def verdicts(model: str) -> Mapping[str, str]:
    """Return the verdict of each variant's parity record; the service checks the record again before it serves.

    Raises:
        CompareError: there is no such bundle, or none of its variants has passed.
    """
    folder = artifacts() / model / "parity"
    found = {}
    for path in sorted(folder.glob("*.json")):
        if path.stem != _REFERENCE:
            try:
                found[path.stem] = str(json.loads(path.read_text())["verdict"])
            except (OSError, ValueError, KeyError, TypeError):
                found[path.stem] = "unreadable"
    if PASSED not in found.values():
        instead = f"there is no proven variant in {folder}: run `python -m export --model {model}`"
        if not (artifacts() / model / "manifest.json").exists():
            instead = no_bundle(model, artifacts())
        raise CompareError(f"--model {model}: {instead}, or name the folder of bundles with HALFTONE_ARTIFACTS")
    return found
