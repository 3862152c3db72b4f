"""Throughput of the variants on one machine, `speed.json`: measured by `python -m export`, read by serving.

Serving uses the table only if processor, libraries and files are the same; otherwise it measures again.
"""

from __future__ import annotations

import contextlib
import json
import math
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from typing import Any, Self

import numpy as np

from export.runtime import Runtime
from export.variants import runtime_of
from models.bundle.bundle import Bundle
from models.bundle.errors import OutsideError, SymlinkError
from models.common.errors import HalftoneError
from models.common.host import cores, host
from models.common.strict_json import json_object

FILE_NAME = "speed.json"
SCHEMA = 1
SECONDS = 0.4
WARM_UP = 3


@dataclass(frozen=True, kw_only=True)
class Speed:
    """Throughput of one variant."""

    images_per_second: float
    """Rate of single images, one thread per core, without decoding."""

    source_sha256: str
    """Hash of the file that the variant was loaded from."""

    library: str
    """Version of the runtime's library."""

    def __post_init__(self) -> None:
        if not isinstance(self.images_per_second, int | float) or not 0 <= self.images_per_second < math.inf:
            raise ValueError(f"{self.images_per_second!r} images/s")


@dataclass(frozen=True, kw_only=True)
class SpeedTable:
    """Throughput of a bundle's variants on one machine."""

    host: dict[str, Any]
    """Result of `models.common.host.host()`."""

    variants: dict[str, Speed]
    """Variant to throughput."""

    def to_json(self) -> bytes:
        """Return the table as indented UTF-8 JSON."""
        return (json.dumps({"schema": SCHEMA} | asdict(self), indent=1) + "\n").encode()

    @classmethod
    def from_json(cls, data: bytes) -> Self:
        """Parse the output of `to_json`.

        Raises:
            HalftoneError: the data is not a table of this schema.
        """
        try:
            values = json_object(data)
            if values["schema"] != SCHEMA:
                raise ValueError("another schema version")
            variants = {name: Speed(**speed) for name, speed in values["variants"].items()}
            return cls(host=values["host"], variants=variants)
        except (ValueError, TypeError, AttributeError, KeyError) as error:
            raise HalftoneError(f"not a table of speeds ({error})") from None


def rate(runtime: Runtime, streams: int, seconds: float = SECONDS, *, batch: int = 1) -> float:
    """Return the images/s of `runtime.run` called by `streams` threads at once, after a warm-up.

    Args:
        runtime: loaded for this number of streams.
        streams: number of threads.
        seconds: duration.
        batch: images per batch.

    Raises:
        Exception: as `runtime.run`.
    """
    pictures = np.random.default_rng(0).integers(0, 256, (batch, *runtime.shape), dtype=np.uint8)
    counts = [0] * streams
    barrier = threading.Barrier(streams + 1)

    failures: list[Exception] = []

    def work(thread: int) -> None:
        try:
            for _ in range(WARM_UP):
                runtime.run(pictures)
            barrier.wait()
            end = time.perf_counter() + seconds
            while time.perf_counter() < end:
                runtime.run(pictures)
                counts[thread] += 1
        except threading.BrokenBarrierError:
            # Another thread failed and reports the reason.
            return
        except Exception as error:
            failures.append(error)
            barrier.abort()

    threads = [threading.Thread(target=work, args=(thread,)) for thread in range(streams)]
    for thread in threads:
        thread.start()
    # Broken if a thread failed: its exception is raised below.
    with contextlib.suppress(threading.BrokenBarrierError):
        barrier.wait()
    start = time.perf_counter()
    for thread in threads:
        thread.join()
    if failures:
        raise failures[0]
    return batch * sum(counts) / (time.perf_counter() - start)


def measure(bundle: Bundle, runtimes: Mapping[str, Callable[[], Runtime]]) -> SpeedTable:
    """Load and measure one variant after the other.

    Args:
        bundle: bundle of the variants.
        runtimes: variant to a function that loads it for `cores()` threads and streams.
    """
    speeds = {}
    for variant, load in runtimes.items():
        runtime = load()
        speeds[variant] = Speed(
            images_per_second=round(rate(runtime, cores()), 1),
            source_sha256=bundle.manifest.files[runtime.source(runtime.precision)].sha256,
            library=runtime.version(),
        )
    return SpeedTable(host=host(), variants=speeds)


def recorded(bundle: Bundle, variants: list[str]) -> dict[str, float] | None:
    """Return the images/s of each variant from the bundle's table; None if it is damaged or of other machines or files.

    Raises:
        BundleError: the table is a link.
    """
    table = _table(bundle)
    if table is None or table.host != host():
        return None
    for variant in variants:
        speed, (runtime, precision) = table.variants.get(variant), runtime_of(variant)
        now = bundle.manifest.files[runtime.source(precision)].sha256, runtime.version()
        if speed is None or (speed.source_sha256, speed.library) != now:
            return None
    return {variant: table.variants[variant].images_per_second for variant in variants}


def elsewhere(bundle: Bundle) -> dict[str, float]:
    """Return the images/s in the bundle's table, whatever machine they are of: a first guess; nothing if it is damaged.

    Raises:
        BundleError: the table is a link.
    """
    table = _table(bundle)
    return {variant: speed.images_per_second for variant, speed in table.variants.items()} if table else {}


def _table(bundle: Bundle) -> SpeedTable | None:
    if not bundle.has(FILE_NAME):
        return None
    try:
        return SpeedTable.from_json(bundle.read(FILE_NAME))
    except (SymlinkError, OutsideError):
        raise
    except HalftoneError:
        return None


def save(bundle: Bundle, table: SpeedTable) -> None:
    """Write the table into the bundle."""
    files = bundle.manifest.files
    hashes = {speed.source_sha256 for speed in table.variants.values()}
    sources = sorted(name for name, record in files.items() if record.sha256 in hashes)
    command = f"`python -m export --model {bundle.name}`"
    bundle.write(FILE_NAME, table.to_json(), made_by=command, made_from=sources)
