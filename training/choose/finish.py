"""What follows the training of the choice: export and proof, and a load test of the served latency."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from importlib.resources import files
from pathlib import Path
from typing import Any

from export.__main__ import ExportAllConfig, export_all
from export.benchmark.compare import compare_bundles
from models.bundle.bundle import Bundle
from models.common.host import cores

SECONDS = 4
"""Of each measurement of the load test."""


def export_and_prove(bundle: Bundle, data: str) -> dict[str, float]:
    """Export, prove and measure a bundle.

    Args:
        bundle: it changes on the disk.
        data: location of the data; the proof takes a folder only, and otherwise shows the sample photographs.

    Returns:
        `milliseconds`, `images_per_second` and `megabytes` of the variant that serves; empty if none is proven.

    Raises:
        HalftoneError: as `python -m export`.
    """
    # The export finds bundles by name, and so does the service of the load test.
    os.environ["HALFTONE_ARTIFACTS"] = str(bundle.folder.parent)
    folder = Path(data)
    export_all(ExportAllConfig(model=bundle.folder.name, data=folder if folder.is_dir() else None))
    (row,) = compare_bundles([Bundle.open(bundle.folder)])
    if row.milliseconds is None:
        return {}
    return {
        "milliseconds": row.milliseconds,
        "images_per_second": 1000 * cores() / row.milliseconds,
        "megabytes": row.megabytes,
    }


def load_test(bundle: Bundle, p99_ms: float, folder: Path) -> dict[str, Any]:
    """Search the highest rate at which the service holds a latency, with decoding, HTTP and waiting.

    Args:
        bundle: exported.
        p99_ms: the 99th percentile in milliseconds.
        folder: for the report of `python -m loadtest.sweep`.

    Returns:
        `highest_rate`, in requests/s, 0 if none holds it; None with the `error` if it could not be measured.
    """
    command = [
        sys.executable, "-m", "loadtest.sweep", "--model", bundle.folder.name, "--p99-ms", f"{p99_ms:g}", "--seconds",
        str(SECONDS), "--scenarios", "--no-plots", "--images", str(files("export") / "photos"), "--output",
        str(folder / "sweep"), "--json",
    ]  # fmt: skip
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    try:
        document = json.loads(result.stdout)
    except ValueError:
        document = {"error": result.stderr.strip().rpartition("\n")[2]}
    return {"highest_rate": document.get("highest_rate"), "error": document.get("error")}
