"""Parity record of one variant, `parity/VARIANT.json`: written by a proof, read by serving."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from typing import Any, Literal, Self, get_args

from export.cuda.device import gpu
from export.variants import runtime_names, runtime_of
from models.bundle.bundle import WEIGHTS, Bundle
from models.bundle.errors import BundleError, DamagedError
from models.common.errors import HalftoneError
from models.common.strict_json import json_object

SCHEMA = 2
"""Since 2, every output is judged; a proof of schema 1 is made again."""

CPU = "CPU"

Verdict = Literal["PASSED", "FAILED"]
VerifiedOn = Literal["runtime", "graph"]


class UnprovenError(HalftoneError):
    """The variant has no valid parity record, so it may not serve."""


class DamagedRecordError(UnprovenError):
    """The variant's parity record is missing or damaged; other variants are not affected."""


@dataclass(frozen=True, kw_only=True)
class ParityRecord:
    """Result of one comparison with the reference: verdict, figures, images, files and runtime."""

    variant: str
    """`RUNTIME-PRECISION`."""

    verdict: Verdict
    """PASSED or FAILED."""

    reasons: list[str]
    """Missed thresholds, each with its figure; empty if the variant passed."""

    notes: list[str]
    """What the figures can't tell."""

    version: str
    """The model's version (`Manifest.version`)."""

    weights_sha256: str
    """Hash of the weights of the reference."""

    source: str
    """File of the bundle that the variant is loaded from."""

    source_sha256: str
    """Hash of that file."""

    runtime: dict[str, str]
    """`name`, `version` and `executed_as` of the runtime that ran the variant."""

    reference: str
    """Variant and library version of the reference."""

    data: dict[str, Any]
    """`description` of the images, `labelled` (true or false), and the names of the `unreadable` files."""

    gate: dict[str, float]
    """Thresholds of the gate."""

    figures: dict[str, Any]
    """Every figure of `export.parity.metrics.compare`."""

    host: dict[str, Any]
    """Machine that the proof ran on."""

    date: str
    """Time of the proof in UTC, ISO 8601."""

    verified_on: VerifiedOn = "runtime"
    """`runtime`: the variant itself was run. `graph`: another runtime (`runtime` above) ran the graph that the variant
    was built from, because that machine can't run the variant; serving refuses it until the variant itself is run."""

    def __post_init__(self) -> None:
        texts = (self.variant, self.version, self.weights_sha256, self.source, self.source_sha256, self.reference)
        if not all(isinstance(text, str) for text in (*texts, self.date, *self.reasons, *self.notes)):
            raise TypeError("one of its texts is something else")
        if self.verdict not in get_args(Verdict) or (self.verdict == "PASSED" and self.reasons):
            raise ValueError(f"the verdict is {self.verdict!r} for {len(self.reasons)} reasons")
        if self.verified_on not in get_args(VerifiedOn):
            raise ValueError(f"verified on {self.verified_on!r}")
        texts_only = isinstance(self.runtime, dict) and all(isinstance(text, str) for text in self.runtime.values())
        if not texts_only or not {"name", "version", "executed_as"} <= set(self.runtime):
            raise ValueError("the runtime is missing")
        if not isinstance(self.figures, dict):
            raise ValueError("the figures are missing")

    def to_json(self) -> bytes:
        """Return the record as indented UTF-8 JSON."""
        return (json.dumps({"schema": SCHEMA} | asdict(self), indent=1, ensure_ascii=False) + "\n").encode()

    @classmethod
    def from_json(cls, data: bytes) -> Self:
        """Parse the output of `to_json`.

        Raises:
            HalftoneError: the data is not a parity record of this schema.
        """
        try:
            # A variant whose logits are NaN has NaN figures: the record keeps them, and its verdict is FAILED.
            values = json_object(data, finite=False)
            if values.get("verdict") == "PASSED":
                values = json_object(data)
            schema = values.pop("schema", None)
            if schema == 1:
                raise ValueError("of an older version, which did not judge every output")
            if type(schema) is not int or schema != SCHEMA:
                raise ValueError("another schema version")
            return cls(**values)
        except (ValueError, TypeError, AttributeError, KeyError) as error:
            raise HalftoneError(f"not a parity record ({error})") from None


def record_name(variant: str) -> str:
    """Return the path of a variant's record in the bundle."""
    return f"parity/{variant}.json"


def current(bundle: Bundle, variant: str) -> ParityRecord:
    """Return the record of a variant for the bundle's present files, with either verdict.

    Raises:
        UnprovenError: there is none, it is damaged, or it is for other files; the message names the command that makes
            one.
        BundleError: the record is a link.
    """
    model, name = bundle.name, record_name(variant)
    fix = _fix(model, variant)
    if name not in bundle.manifest.files:
        raise UnprovenError(f"{model} has no proof that {variant} answers as the reference does: {fix}")
    try:
        record = ParityRecord.from_json(bundle.read(name))
    except DamagedError as error:
        raise DamagedRecordError(str(error)) from None
    except BundleError:
        raise
    except HalftoneError as error:
        raise DamagedRecordError(f"{bundle.folder / name} can't be used: {error}; {fix}") from None
    files = bundle.manifest.files
    now = {name: files[name].sha256 if name in files else None for name in (WEIGHTS, record.source)}
    if record.variant != variant or now != {WEIGHTS: record.weights_sha256, record.source: record.source_sha256}:
        raise UnprovenError(f"the proof of {variant} is for other files than {model} has now: {fix}")
    return record


def present_records(bundle: Bundle) -> Iterator[ParityRecord]:
    """Yield the records of variants by name, with either verdict; those that `current` refuses are left out."""
    runtimes = runtime_names()
    for name in sorted(bundle.manifest.files):
        variant = name.removeprefix("parity/").removesuffix(".json")
        if name == record_name(variant) and variant.rpartition("-")[0] in runtimes:
            try:
                yield current(bundle, variant)
            except HalftoneError:
                continue


def proof(bundle: Bundle, variant: str) -> ParityRecord:
    """Return the passed record of a variant for the bundle's present files.

    Raises:
        UnprovenError: there is none, it is damaged, it failed, it is for other files, or only the variant's graph was
            checked; the message names the command that makes one.
        BundleError: the record is a link.
    """
    record = current(bundle, variant)
    model = bundle.name
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


def valid_record(bundle: Bundle, variant: str) -> ParityRecord | None:
    """Return the record of a variant for the bundle's present files and this machine, with either verdict.

    This is the check of `check_runtime`, as far as it can be made without loading the variant.

    Returns:
        None if there is no such record, or if another version of its library or another GPU is here. A record whose
        library or GPU this machine lacks is valid, and so is one of the variant's graph, which serving verifies anyway.

    Raises:
        BundleError: the record is a link.
    """
    try:
        record = current(bundle, variant)
    except UnprovenError:
        return None
    return record if record.verified_on == "graph" or _same_machine(record) else None


def verdict(bundle: Bundle, variant: str) -> Verdict | None:
    """Return the verdict on the variant itself by `valid_record`; None without one, or if only its graph was checked.

    Raises:
        BundleError: the record is a link.
    """
    record = valid_record(bundle, variant)
    return record.verdict if record and record.verified_on == "runtime" else None


def _same_machine(record: ParityRecord) -> bool:
    """Return False if another version of the record's library, or another GPU than the record's, is here."""
    device = record.runtime["executed_as"].partition(" on ")[2]
    try:
        if runtime_of(record.variant)[0].version() != record.runtime["version"]:
            return False
        return device == CPU or gpu().name == device
    except HalftoneError:
        # The library or the GPU is missing.
        return True


def _fix(model: str, variant: str) -> str:
    return f"run `python -m export.parity --model {model} --variant {variant}`"


def check_runtime(record: ParityRecord, version: str, executed_as: str, model: str) -> None:
    """Refuse a record made with another library version, or with other arithmetic, than the loaded runtime has.

    Raises:
        UnprovenError: `version` or `executed_as` differs from the record's.
    """
    proved = record.runtime["version"], record.runtime["executed_as"]
    if proved != (version, executed_as):
        raise UnprovenError(
            f"{record.variant} of {model} was proved with {record.runtime['name']} {proved[0]} ({proved[1]}), and here "
            f"it would run on {version} ({executed_as}): {_fix(model, record.variant)} on this machine"
        )
