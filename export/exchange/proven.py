"""The proven variant of a runtime, for servers that run its files without looking at the proof."""

from __future__ import annotations

from dataclasses import dataclass

from export.benchmark import speed
from export.benchmark.choice import best_first
from export.parity.record import ParityRecord, UnprovenError, proof, record_name
from export.variants import runtime_class
from models.bundle.bundle import Bundle
from models.bundle.onnx_external import external_locations
from models.common.errors import HalftoneError
from models.common.text import line


@dataclass(frozen=True, kw_only=True)
class Proven:
    """A variant that passed its gate, with the bytes that were proven."""

    record: ParityRecord
    """Its parity record."""

    data: bytes
    """Content of the file that it is loaded from, checked against its hash."""

    @property
    def precision(self) -> str:
        """Second half of the variant's name."""
        return self.record.variant.rpartition("-")[2]

    @property
    def summary(self) -> str:
        """One sentence: verdict, images, library and date."""
        ran, data = self.record.runtime, self.record.data["description"]
        return line(
            f"`{self.record.variant}`: parity {self.record.verdict} on {self.record.figures['images']} images "
            f"({data}), run by {ran['name']} {ran['version']} as {ran['executed_as']}, {self.record.date[:10]}"
        )


def fastest_proven(bundle: Bundle, runtime: str) -> Proven:
    """Return the variant of a runtime that serving would choose by the speeds in the bundle.

    Raises:
        UnprovenError: no variant of this runtime has passed its gate.
        BundleError: a file is missing, stale or differs from the manifest.
        HalftoneError: the graph stores tensors in another file, or the runtime is not installed.
    """
    kind = runtime_class(runtime)
    records, reasons = {}, []
    for variant in (f"{runtime}-{precision}" for precision in kind.precisions):
        if record_name(variant) not in bundle.manifest.files:
            continue
        try:
            record = proof(bundle, variant)
        except UnprovenError as error:
            reasons.append(str(error))
            continue
        if record.source == kind.source(variant.rpartition("-")[2]):
            records[variant] = record
    if not records:
        why = "; ".join(reasons) or "no parity record"
        raise UnprovenError(
            f"{bundle.name} has no proven variant of {runtime} ({why}): run `python -m export --model {bundle.name}`"
        )
    record = records[best_first(speed.elsewhere(bundle), records)[0]]
    bundle.fresh(record.source)
    return Proven(record=record, data=_whole(bundle, record.source))


def _whole(bundle: Bundle, name: str) -> bytes:
    data = bundle.read(name)
    if name.endswith(".onnx") and (external := external_locations(data)):
        raise HalftoneError(
            f"{name} of {bundle.folder} stores tensors in {external[0]}, and only whole graphs can be pushed: "
            f"export it again with {bundle.command(name)}"
        )
    return data
