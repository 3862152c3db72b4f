"""Batch sizes that serving found worth their time, from the file that it keeps beside a bundle's manifest."""

from __future__ import annotations

from models.bundle.bundle import Bundle
from models.common.errors import HalftoneError
from models.common.files import open_plain
from models.common.strict_json import json_object

MEASURED = "measured.json"
"""Written by `serving.lifecycle.measurements`; not in the manifest, as it says nothing about the model."""

_GAIN = 1.03
"""Least ratio of two throughputs that counts as a gain, as in serving."""

_MAX_BYTES = 2**20


def measured_batches(bundle: Bundle, variant: str) -> tuple[int, ...] | None:
    """Return the batch sizes above 1 that raise the throughput of a variant, by the newest measurement of its file.

    Returns:
        Rising sizes; none if batches don't pay; None if they were not measured, or the file can't be used.
    """
    try:
        with open_plain(bundle.folder / MEASURED) as file:
            measurements = json_object(file.read(_MAX_BYTES))["measurements"]
        hashes = {record.sha256 for record in bundle.manifest.files.values()}
        for each in reversed(measurements):
            now = each["conditions"]["variant"] == variant and each["conditions"]["source_sha256"] in hashes
            if now and each["seconds"]:
                return _worthwhile({int(size): float(seconds) for size, seconds in each["seconds"]})
    except (OSError, HalftoneError, KeyError, TypeError, ValueError, ZeroDivisionError):
        return None
    return None


def _worthwhile(seconds: dict[int, float]) -> tuple[int, ...]:
    """Return the sizes above 1 whose throughput exceeds that of every smaller one."""
    best, found = 0.0, []
    for size in sorted(seconds):
        if size / seconds[size] > best * _GAIN:
            best = size / seconds[size]
            found.append(size)
    return tuple(size for size in found if size > 1)
