"""`parity/VARIANT.json`: the proof of one variant, as it is written and as serving reads it."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from typing import Any, Literal, Self, get_args

from models.bundle.bundle import WEIGHTS, Bundle
from models.common.errors import HalftoneError
from models.common.strict_json import json_object

SCHEMA = 1

Verdict = Literal["PASSED", "FAILED"]
VerifiedOn = Literal["runtime", "graph"]


class UnprovenError(HalftoneError):
    """The variant has no valid proof, so it may not serve."""


@dataclass(frozen=True, kw_only=True)
class ParityRecord:
    """What was compared with what, on which pictures, with which result."""

    variant: str
    """`RUNTIME-PRECISION`."""

    verdict: Verdict
    """PASSED or FAILED."""

    reasons: list[str]
    """Why it failed, each with the figure and the threshold; empty where it passed."""

    version: str
    """The model's version (`Manifest.version`)."""

    weights_sha256: str
    """Hash of the weights that the reference ran."""

    source: str
    """The bundle's file that the variant is loaded from."""

    source_sha256: str
    """Its hash."""

    runtime: dict[str, str]
    """`name`, `version` and `executed_as` of the runtime that ran the variant."""

    reference: str
    """The reference's variant and library version."""

    data: dict[str, Any]
    """`description` of the pictures, whether they are `labelled`, and which were `unreadable`."""

    gate: dict[str, float]
    """The thresholds that were applied."""

    figures: dict[str, Any]
    """Every figure of `export.parity.metrics.compare`."""

    host: dict[str, Any]
    """The machine that it was proved on."""

    date: str
    """When, in UTC, ISO 8601."""

    verified_on: VerifiedOn = "runtime"
    """`runtime`: the variant itself was run. `graph`: another runtime (`runtime` above) ran the graph that the variant
    was built from, as this machine can't run the variant; it may not serve before it was run itself."""

    def __post_init__(self) -> None:
        texts = (self.variant, self.version, self.weights_sha256, self.source, self.source_sha256, self.reference)
        if not all(isinstance(text, str) for text in (*texts, self.date, *self.reasons)):
            raise TypeError("one of its texts is something else")
        if self.verdict not in get_args(Verdict) or (self.verdict == "PASSED" and self.reasons):
            raise ValueError(f"the verdict is {self.verdict!r} for {len(self.reasons)} reasons")
        if self.verified_on not in get_args(VerifiedOn):
            raise ValueError(f"verified on {self.verified_on!r}")
        told = isinstance(self.runtime, dict) and all(isinstance(text, str) for text in self.runtime.values())
        if (
            not told
            or not {"name", "version", "executed_as"} <= set(self.runtime)
            or not isinstance(self.figures, dict)
        ):
            raise ValueError("the runtime or its figures are missing")

    def to_json(self) -> bytes:
        """The record as readable UTF-8 JSON."""
        return (json.dumps({"schema": SCHEMA} | asdict(self), indent=1, ensure_ascii=False) + "\n").encode()

    @classmethod
    def from_json(cls, data: bytes) -> Self:
        """Read what `to_json` wrote.

        Raises:
            HalftoneError: not a parity record of this schema.
        """
        try:
            # A variant that answered NaN has figures that are none: they are kept, and it failed.
            values = json_object(data, finite=False)
            if values.get("verdict") == "PASSED":
                values = json_object(data)
            schema = values.pop("schema", None)
            if type(schema) is not int or schema != SCHEMA:
                raise ValueError("another schema version")
            return cls(**values)
        except (ValueError, TypeError, AttributeError, KeyError) as error:
            raise HalftoneError(f"not a parity record ({error})") from None


def record_name(variant: str) -> str:
    """The record's place in the bundle."""
    return f"parity/{variant}.json"


def current(bundle: Bundle, variant: str) -> ParityRecord:
    """The record of a variant for the bundle's present files, whatever its verdict.

    Raises:
        UnprovenError: there is none, or it was made for other files; the message names the command.
        BundleError: the record was tampered with.
    """
    model, name = bundle.manifest.name, record_name(variant)
    fix = _fix(model, variant)
    if name not in bundle.manifest.files:
        raise UnprovenError(f"{model} has no proof that {variant} answers as the reference does: {fix}")
    data = bundle.read(name)
    try:
        record = ParityRecord.from_json(data)
    except HalftoneError as error:
        raise UnprovenError(f"{bundle.folder / name} can't be used: {error}; {fix}") from None
    files = bundle.manifest.files
    now = {name: files[name].sha256 if name in files else None for name in (WEIGHTS, record.source)}
    if record.variant != variant or now != {WEIGHTS: record.weights_sha256, record.source: record.source_sha256}:
        raise UnprovenError(f"the proof of {variant} is for other files than {model} has now: {fix}")
    return record


def proof(bundle: Bundle, variant: str) -> ParityRecord:
    """The valid, passed proof of a variant for the bundle's present files.

    Raises:
        UnprovenError: there is none, it failed, it was made for other files, or only the variant's graph was checked;
            the message names the command.
        BundleError: the record was tampered with.
    """
    record = current(bundle, variant)
    model = bundle.manifest.name
    if record.verdict != "PASSED":
        raise UnprovenError(
            f"{variant} of {model} failed its parity gate ({'; '.join(record.reasons)}): serve another variant, "
            f"or after mending the export {_fix(model, variant)}"
        )
    if record.verified_on != "runtime":
        raise UnprovenError(
            f"only the graph of {variant} of {model} was checked (by {record.runtime['name']} "
            f"{record.runtime['version']}), not {record.source} itself: on the machine that serves it "
            f"{_fix(model, variant)}"
        )
    return record


def _fix(model: str, variant: str) -> str:
    return f"run `python -m export.parity --model {model} --variant {variant}`"


def check_runtime(record: ParityRecord, version: str, executed_as: str, model: str) -> None:
    """Refuse a proof that another library version, or another arithmetic, gave.

    Raises:
        UnprovenError: they differ from the record's.
    """
    proved = record.runtime["version"], record.runtime["executed_as"]
    if proved != (version, executed_as):
        raise UnprovenError(
            f"{record.variant} of {model} was proved with {record.runtime['name']} {proved[0]} ({proved[1]}), and here "
            f"it would run on {version} ({executed_as}): "
            f"run `python -m export.parity --model {model} --variant {record.variant}` on this machine"
        )
