"""`manifest.json`: the model's description, its training record, and name, hash and origin of every file.

The names are plain relative paths that stay inside the bundle on every operating system.
"""

from __future__ import annotations

import hashlib
import json
import math
import re
from collections.abc import Iterable
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path, PurePosixPath
from typing import Any, Self

from models.bundle.errors import OutsideError
from models.common.errors import HalftoneError
from models.common.strict_json import json_object
from models.common.text import controls
from models.spec import InputSpec

SCHEMA = 1
FILE_NAME = "manifest.json"

MAX_BYTES = 32 * 2**20
"""Limit on the size of a manifest; with 22,000 labels and their ids it takes about one MiB."""

TEMPERATURES = 1e-3, 1e3
"""Range of the temperature; beyond it, every probability is 0 or 1, or all are equal."""

MAX_MADE_BY = 1000
"""Limit on the characters of `made_by`."""

_MAX_NAME_BYTES = 255
_SHA256 = re.compile(r"[0-9a-f]{64}")


@dataclass(frozen=True, kw_only=True)
class FileRecord:
    """Hash and origin of one file of the bundle."""

    sha256: str
    """SHA-256 of the content, lower-case hexadecimal."""

    size: int
    """Length in bytes."""

    made_by: str
    """The command that wrote the file and that repairs it."""

    made_from: dict[str, str] = field(default_factory=dict)
    """Name to SHA-256 of the bundle's files that this file was made from."""

    def __post_init__(self) -> None:
        hashes = [self.sha256, *self.made_from.values()]
        if not all(isinstance(value, str) and _SHA256.fullmatch(value) for value in hashes):
            raise HalftoneError("a SHA-256 is not 64 hexadecimal digits")
        if type(self.size) is not int or self.size < 0:
            raise HalftoneError(f"a file size is {self.size!r}")
        # Errors and logs contain this text, which must not imitate a line of their own.
        if not (isinstance(self.made_by, str) and self.made_by.isprintable() and len(self.made_by) <= MAX_MADE_BY):
            raise HalftoneError(f"the `made_by` of a file is {self.made_by!r:.100}")


@dataclass(frozen=True, kw_only=True)
class Member:
    """One model of an ensemble, as it was when they were joined."""

    name: str
    """Name of its bundle."""

    version: str
    """`Manifest.version` of its bundle."""

    architecture: str
    """The catalogue's name of its network."""

    input: InputSpec
    """Preprocessing that it expects; the ensemble's graph makes it from the ensemble's own input."""

    temperature: float
    """Divisor of its logits before the softmax."""

    order: tuple[int, ...] = ()
    """For each label of the ensemble, the index of the member's output; empty for the same order."""

    def __post_init__(self) -> None:
        texts = (self.name, self.version, self.architecture)
        if not all(isinstance(text, str) and text.isprintable() for text in texts):
            raise HalftoneError(f"the description of a member of the ensemble is {texts!r:.100}")
        if not isinstance(self.temperature, int | float) or not self.temperature > 0:
            raise HalftoneError(f"the temperature of a member of the ensemble is {self.temperature!r:.100}")

    def to_dict(self) -> dict[str, Any]:
        """Return the values as JSON-ready types."""
        return asdict(self) | {"input": self.input.to_dict(), "order": list(self.order)}

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> Self:
        """Parse the result of `to_dict`."""
        return cls(**values | {"input": InputSpec.from_dict(values["input"]), "order": tuple(values["order"])})


@dataclass(frozen=True, kw_only=True)
class Manifest:
    """The bundle's description; immutable, so a change creates a new object.

    Raises:
        HalftoneError: labels are missing or not distinct, a text can't be encoded as UTF-8 or contains a control
            character, or the temperature is outside `TEMPERATURES`.
    """

    name: str
    """The bundle's name, also the model's name over HTTP."""

    architecture: str
    """The catalogue's name of the network, or `ensemble`."""

    input: InputSpec
    """Preprocessing that the model expects."""

    labels: tuple[str, ...]
    """Class names, by output index; distinct."""

    label_ids: tuple[str, ...] = ()
    """Other names of the classes, by output index (for ImageNet the WordNet ids); may be empty."""

    trained: bool
    """False for random weights, which serving refuses by default."""

    source: str
    """Origin of the weights, in words."""

    license: str
    """SPDX identifier of the weights' licence."""

    training: dict[str, Any] = field(default_factory=dict)
    """Resolved training configuration and metrics; empty for weights that Halftone did not train."""

    temperature: float = 1.0
    """Divisor of the logits before the softmax (calibration, Guo et al. 2017); 1 without calibration."""

    members: tuple[Member, ...] = ()
    """Models of an ensemble, whose mean probabilities are its answer; empty for a single network."""

    files: dict[str, FileRecord] = field(default_factory=dict)
    """Relative path to record, for every file of the bundle except the manifest."""

    def __post_init__(self) -> None:
        self._check_texts()
        indices = list(range(len(self.labels)))
        if not all(sorted(member.order or indices) == indices for member in self.members):
            raise HalftoneError("the outputs of a member of the ensemble do not fit the labels")
        if not isinstance(self.trained, bool) or not isinstance(self.training, dict):
            raise HalftoneError("`trained` must be true or false, and `training` an object")
        for name, values in (("labels", self.labels), ("label ids", self.label_ids)):
            if len(set(values)) != len(values) or not all(isinstance(v, str) and v for v in values):
                raise HalftoneError(f"the {name} must be distinct, non-empty names")
        if not self.labels:
            raise HalftoneError("there are no labels")
        if self.label_ids and len(self.label_ids) != len(self.labels):
            raise HalftoneError(f"{len(self.label_ids)} label ids do not fit {len(self.labels)} labels")
        coldest, hottest = TEMPERATURES
        if not (isinstance(self.temperature, int | float) and coldest <= self.temperature <= hottest):
            raise HalftoneError(f"the temperature must be from {coldest} to {hottest:g}, not {self.temperature!r:.100}")
        texts = (self.name, self.architecture, self.source, self.license, *self.labels, *self.label_ids)
        if broken := next((text for text in texts if not _is_unicode(text)), None):
            raise HalftoneError(f"the text {broken!r:.100} contains half a character (a lone surrogate)")
        if odd := next((text for text in texts if controls(text)), None):
            raise HalftoneError(f"the text {odd!r:.100} contains a control character or a line end")

    def _check_texts(self) -> None:
        for name in ("name", "architecture", "source", "license"):
            if not isinstance(getattr(self, name), str):
                raise HalftoneError(f"the {name} must be text, not {getattr(self, name)!r}")

    @property
    def architectures(self) -> tuple[str, ...]:
        """The catalogue's names of the members' networks, or of the only one."""
        return tuple(member.architecture for member in self.members) or (self.architecture,)

    @property
    def version(self) -> str:
        """Twelve hexadecimal digits, derived from everything that changes the predictions or their meaning."""
        weights = self.files["weights.safetensors"].sha256 if "weights.safetensors" in self.files else ""
        meaning = [weights, self.architecture, self.input.to_dict(), list(self.labels), self.temperature]
        meaning += [member.to_dict() for member in self.members]
        return hashlib.sha256(json.dumps(meaning, sort_keys=True).encode()).hexdigest()[:12]

    def with_file(self, name: str, record: FileRecord) -> Self:
        """Return a copy that also lists `name`."""
        return replace(self, files=self.files | {name: record})

    def to_json(self) -> bytes:
        """Return the manifest as indented UTF-8 JSON."""
        values = {"schema": SCHEMA} | asdict(self) | {"input": self.input.to_dict()}
        values["training"] = _without_nan(self.training)
        values["members"] = [member.to_dict() for member in self.members]
        if not self.members:
            # Earlier versions read the manifests of single networks.
            del values["members"]
        return (json.dumps(values, indent=1, ensure_ascii=False, allow_nan=False) + "\n").encode()

    @classmethod
    def from_json(cls, data: bytes) -> Self:
        """Parse the result of `to_json`.

        Raises:
            HalftoneError: the data is not JSON, is too large or has another schema version, or a field is missing,
                unknown or out of range.
        """
        if len(data) > MAX_BYTES:
            raise HalftoneError(f"it has over {MAX_BYTES} bytes")
        values = json_object(data)
        schema = values.pop("schema", None)
        # `True` and `1.0` equal 1.
        if type(schema) is not int or schema != SCHEMA:
            raise HalftoneError(f"its schema version is {schema!r}, and this Halftone reads version {SCHEMA}")
        try:
            if not all(isinstance(values[name], list) for name in ("labels", "label_ids")):
                raise TypeError("labels and label_ids must be lists")
            return cls(
                **values
                | {
                    "input": InputSpec.from_dict(values["input"]),
                    "labels": tuple(values["labels"]),
                    "label_ids": tuple(values["label_ids"]),
                    "members": tuple(Member.from_dict(member) for member in values.get("members", [])),
                    "files": {name: FileRecord(**record) for name, record in values["files"].items()},
                }
            )
        except (TypeError, KeyError, AttributeError) as error:
            raise HalftoneError(f"a field is missing, unknown or of the wrong type ({error})") from None


def _is_unicode(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def _without_nan(value: Any) -> Any:
    """Replace non-finite numbers (a diverged loss) by None, as JSON can't represent them."""
    if isinstance(value, dict):
        return {key: _without_nan(each) for key, each in value.items()}
    if isinstance(value, list | tuple):
        return [_without_nan(each) for each in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def check_names(names: Iterable[str], folder: Path) -> None:
    """Reject names that are not plain paths, or that some file systems treat as the same file.

    Raises:
        OutsideError: a name leads outside the bundle.
        HalftoneError: a name is not a plain relative path, or two names differ in upper and lower case only.
    """
    seen: dict[str, str] = {}
    for name in names:
        path = str(inside(name, folder))
        long = any(len(part.encode(errors="replace")) > _MAX_NAME_BYTES for part in PurePosixPath(path).parts)
        if name != path or long or not name.isprintable() or name.casefold() == FILE_NAME:
            raise HalftoneError(f"{name!r} is not the plain relative path of a file")
        if name.casefold() in seen:
            raise HalftoneError(f"{name!r} and {seen[name.casefold()]!r} differ in upper and lower case only")
        seen[name.casefold()] = name


def inside(name: str, folder: Path, kind: str = "the path") -> PurePosixPath:
    """Return the relative path after checking that it stays in the folder: no `..`, root, backslash or NUL.

    Raises:
        OutsideError: the path leads outside the folder.
    """
    path = PurePosixPath(name)
    if not name or path.is_absolute() or ".." in path.parts or "\\" in name or "\0" in name:
        raise OutsideError(f"{kind} {name!r} leads outside the bundle {folder}: do not use it, or export it again")
    return path
