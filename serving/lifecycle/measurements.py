"""What was measured of a bundle's variants, kept next to its manifest: `measured.json`, written and read by serving.

A measurement counts only for the machine, the threads, the file and the library that it was made with. The file is not
in the manifest: it says nothing about the model, and nothing in it is ever executed.
"""

from __future__ import annotations

import json
import logging
import math
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any, Self

from export.benchmark import speed
from export.variants import runtime_of
from models.bundle.bundle import Bundle
from models.common.errors import HalftoneError
from models.common.files import open_plain, write_atomic
from models.common.host import host
from models.common.strict_json import json_object
from serving.batching.autotune import SIZES
from serving.batching.cost_model import Costs
from serving.settings import Settings

logger = logging.getLogger("bentoml.halftone")

FILE_NAME = "measured.json"
SCHEMA = 1
MOST = 64
"""Most measurements in a file; the oldest are dropped."""
_MAX_BYTES = 2**20


@dataclass(frozen=True, kw_only=True)
class Conditions:
    """What a measurement depends on."""

    variant: str
    source_sha256: str
    """Hash of the file that the variant was loaded from."""

    library: str
    """Version of the runtime's library."""

    threads: int
    """Threads that run the model."""

    largest: int
    """Largest batch that could be tried."""

    host: dict[str, Any]
    """Result of `models.common.host.host()`."""

    @classmethod
    def now(cls, bundle: Bundle, variant: str, settings: Settings) -> Self:
        """Return the conditions of a measurement here and now."""
        runtime, precision = runtime_of(variant)
        return cls(
            variant=variant,
            source_sha256=bundle.manifest.files[runtime.source(precision)].sha256,
            library=runtime.version(),
            threads=settings.worker_threads,
            largest=min(settings.queue, max(SIZES)),
            host=host(),
        )


@dataclass(frozen=True, kw_only=True)
class Measurement:
    """Speed of one variant, and the durations of its batches if they were measured."""

    conditions: Conditions
    images_per_second: float | None = None
    """Rate of single images; None: not measured, as there was no other variant to choose from."""

    streams: int = 0
    """Batches in flight; 0 if the batches were not measured."""

    seconds: tuple[tuple[int, float], ...] = ()
    """Size of a batch and its duration in seconds, by size."""

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> Self:
        """Check the values of one entry of a file.

        Raises:
            KeyError, TypeError, ValueError: they are not those of a measurement.
        """
        seconds = tuple((int(size), float(cost)) for size, cost in values["seconds"])
        rate, streams = values["images_per_second"], values["streams"]
        if not all(size in SIZES and 0 < cost < math.inf for size, cost in seconds):
            raise ValueError(f"batches {seconds!r}")
        if not isinstance(streams, int) or bool(streams) != bool(seconds) or (seconds and seconds[0][0] != 1):
            raise ValueError(f"{streams!r} batches in flight")
        if rate is not None and not (isinstance(rate, int | float) and 0 <= rate < math.inf):
            raise ValueError(f"{rate!r} images/s")
        if not 0 <= streams <= values["conditions"]["threads"]:
            raise ValueError(f"{streams} batches in flight")
        return cls(
            conditions=Conditions(**values["conditions"]), images_per_second=rate, streams=streams, seconds=seconds
        )


_in_memory: dict[str, list[Measurement]] = {}
"""Folder of a bundle to what this process knows of it, newest last: the folder may be read-only."""


def to_json(measurements: Sequence[Measurement]) -> bytes:
    """Return the content of a file with these measurements."""
    return (json.dumps({"schema": SCHEMA, "measurements": [asdict(each) for each in measurements]}) + "\n").encode()


def from_json(data: bytes) -> list[Measurement]:
    """Parse the output of `to_json`.

    Raises:
        HalftoneError: the data is something else.
    """
    values = json_object(data)
    try:
        if values["schema"] != SCHEMA:
            raise ValueError("another schema version")
        return [Measurement.from_dict(each) for each in values["measurements"][-MOST:]]
    except (ValueError, TypeError, KeyError, AttributeError, IndexError) as error:
        raise HalftoneError(f"not a file of measurements ({error})") from None


def rates(bundle: Bundle, variants: list[str], settings: Settings) -> dict[str, float] | None:
    """Return the images/s of each variant on this machine, as measured by serving or by `python -m export`.

    Returns:
        None if one of them was not measured under the present conditions.
    """
    if (exported := speed.recorded(bundle, variants)) is not None:
        return exported
    found = {variant: _find(bundle, variant, settings) for variant in variants}
    known = {name: each.images_per_second for name, each in found.items() if each}
    measured = {name: rate for name, rate in known.items() if rate is not None}
    return measured if len(measured) == len(variants) else None


def batches(bundle: Bundle, variant: str, settings: Settings) -> tuple[int, Costs] | None:
    """Return the number of batches in flight and the costs of batches; None if they are not known."""
    found = _find(bundle, variant, settings)
    return (found.streams, Costs(dict(found.seconds))) if found and found.seconds else None


def remember(bundle: Bundle, new: Iterable[Measurement]) -> None:
    """Use measurements in this process from now on."""
    _in_memory[_name(bundle)] = _merged(_in_memory.get(_name(bundle), []), new)


def remember_batches(bundle: Bundle, variant: str, settings: Settings, streams: int, costs: Costs) -> None:
    """Use the measured costs of a variant's batches in this process from now on."""
    known = _find(bundle, variant, settings) or Measurement(conditions=Conditions.now(bundle, variant, settings))
    remember(bundle, [replace(known, streams=streams, seconds=tuple(costs.seconds.items()))])


def remembered(bundle: Bundle) -> list[Measurement]:
    """Return what this process knows of a bundle beside its file."""
    return list(_in_memory.get(_name(bundle), []))


def keep(bundle: Bundle, new: Iterable[Measurement]) -> None:
    """Write measurements into the bundle's folder, for the next start; say so if that fails, and go on."""
    try:
        write_atomic(bundle.folder / FILE_NAME, to_json(_merged(_read(bundle), new)))
    except OSError as error:
        reason = error.strerror or error
        logger.info("%s: can't be written (%s): every start measures again", bundle.folder / FILE_NAME, reason)


def _name(bundle: Bundle) -> str:
    return str(bundle.folder.absolute())


def _find(bundle: Bundle, variant: str, settings: Settings) -> Measurement | None:
    """Return the newest measurement of a variant under the present conditions."""
    conditions = Conditions.now(bundle, variant, settings)
    known = [*_read(bundle), *_in_memory.get(_name(bundle), [])]
    return next((each for each in reversed(known) if each.conditions == conditions), None)


def _read(bundle: Bundle) -> list[Measurement]:
    """Return the measurements of the file; none if there is no such file, or it can't be used."""
    try:
        with open_plain(bundle.folder / FILE_NAME) as file:
            return from_json(file.read(_MAX_BYTES))
    except (OSError, HalftoneError):
        return []


def _merged(old: Iterable[Measurement], new: Iterable[Measurement]) -> list[Measurement]:
    """Return the old measurements and the new ones, which replace those of the same conditions."""
    new = list(new)
    replaced = [each.conditions for each in new]
    return [*(each for each in old if each.conditions not in replaced), *new][-MOST:]
