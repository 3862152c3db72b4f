"""`manifest.json`: what a bundle holds, what was done to it, and the hash of every file."""

# MERGED-DOC """The names of a bundle's files: plain relative paths that lie inside it on every system."""

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
from models.spec import InputSpec

SCHEMA = 1

FILE_NAME = "manifest.json"

MAX_BYTES = 32 * 2**20

"""Most bytes of a manifest; one with 22,000 labels and their ids has about one MiB."""

TEMPERATURES = 1e-3, 1e3

"""Least and most of what divides the logits; beyond it every probability is 0 or 1, or all are the same."""

MOST_MADE_BY = 1000

"""Characters of the command that made a file."""

_SHA256 = re.compile(r"[0-9a-f]{64}")


@dataclass(frozen=True, kw_only=True)
class FileRecord:
    """One file of the bundle and where it came from."""

    sha256: str
    """SHA-256 of the content, lower-case hexadecimal."""

    size: int
    """Length in bytes."""

    made_by: str
    """The command that wrote the file, and that repairs it."""

    made_from: dict[str, str] = field(default_factory=dict)
    """Name to SHA-256 of the bundle's files that it was made from."""

    def __post_init__(self) -> None:
        hashes = [self.sha256, *self.made_from.values()]
        if not all(isinstance(value, str) and _SHA256.fullmatch(value) for value in hashes):
            raise HalftoneError("a SHA-256 in it is not 64 hexadecimal digits")
        if type(self.size) is not int or self.size < 0:
            raise HalftoneError(f"a file size in it is {self.size!r}")
        # It is shown in errors and logs, where it must not look like a line of its own.
        if not (isinstance(self.made_by, str) and self.made_by.isprintable() and len(self.made_by) <= MOST_MADE_BY):
            raise HalftoneError(f"the maker of a file in it is {self.made_by!r:.100}")


@dataclass(frozen=True, kw_only=True)
class Manifest:
    """The bundle's description; immutable: a change makes a new one.

    Raises:
        HalftoneError: labels are missing or not distinct, a text can't be written as UTF-8, or the temperature is not
            in `TEMPERATURES`.
    """

    name: str
    """The bundle's name, also the model's name over HTTP."""

    architecture: str
    """The catalogue's name of the network."""

    input: InputSpec
    """What the model expects to see."""

    labels: tuple[str, ...]
    """Class names, by output index; distinct."""

    label_ids: tuple[str, ...] = ()
    """Other names of the classes, by output index (for ImageNet the WordNet ids); empty where there are none."""

    trained: bool
    """False for random weights, which serving refuses unless told otherwise."""

    source: str
    """Where the weights come from, in words."""

    license: str
    """SPDX identifier of the weights' licence."""

    training: dict[str, Any] = field(default_factory=dict)
    """The resolved training configuration and its metrics; empty for weights that were not trained here."""

    temperature: float = 1.0
    """Divides the logits before the softmax (calibration, Guo et al. 2017); 1 where none was fitted."""

    files: dict[str, FileRecord] = field(default_factory=dict)
    """Relative path to record, for every file of the bundle but the manifest."""

    def __post_init__(self) -> None:
        self._check_texts()
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
        if half := next((text for text in texts if not _is_unicode(text)), None):
            raise HalftoneError(f"the text {half!r:.100} has half a character in it")

    def _check_texts(self) -> None:
        for name in ("name", "architecture", "source", "license"):
            if not isinstance(getattr(self, name), str):
                raise HalftoneError(f"the {name} must be text, not {getattr(self, name)!r}")

    @property
    def version(self) -> str:
        """Twelve hexadecimal digits that change with anything that can change an answer's meaning."""
        weights = self.files["weights.safetensors"].sha256 if "weights.safetensors" in self.files else ""
        meaning = [weights, self.architecture, self.input.to_dict(), list(self.labels), self.temperature]
        return hashlib.sha256(json.dumps(meaning, sort_keys=True).encode()).hexdigest()[:12]

    def with_file(self, name: str, record: FileRecord) -> Self:
        """A copy that also lists `name`."""
        return replace(self, files=self.files | {name: record})

    def to_json(self) -> bytes:
        """The manifest as readable UTF-8 JSON."""
        values = {"schema": SCHEMA} | asdict(self) | {"input": self.input.to_dict()}
        values["training"] = _without_nan(self.training)
        return (json.dumps(values, indent=1, ensure_ascii=False, allow_nan=False) + "\n").encode()

    @classmethod
    def from_json(cls, data: bytes) -> Self:
        """Read what `to_json` wrote.

        Raises:
            HalftoneError: not JSON, too large, another schema version, or a field that is missing, unknown or out of
                range.
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
    """Null where a figure is not a finite number (a loss that diverged): JSON has no other way to say it."""
    if isinstance(value, dict):
        return {key: _without_nan(each) for key, each in value.items()}
    if isinstance(value, list | tuple):
        return [_without_nan(each) for each in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


_MOST_BYTES = 255


def check_names(names: Iterable[str], folder: Path) -> None:
    """Refuse names that are odd, or that some file system takes for the same file.

    Raises:
        OutsideError: one leads outside the bundle.
        HalftoneError: one is not a plain path, or two are the same.
    """
    seen: dict[str, str] = {}
    for name in names:
        path = str(inside(name, folder))
        long = any(len(part.encode(errors="replace")) > _MOST_BYTES for part in PurePosixPath(path).parts)
        if name != path or long or not name.isprintable() or name.casefold() == FILE_NAME:
            raise HalftoneError(f"{name!r} is not the plain relative path of a file")
        if name.casefold() in seen:
            raise HalftoneError(f"{name!r} and {seen[name.casefold()]!r} differ in upper and lower case only")
        seen[name.casefold()] = name


def inside(name: str, folder: Path, kind: str = "the path") -> PurePosixPath:
    """The relative path, which must stay in the folder whatever links say: no `..`, no root, no odd characters."""
    path = PurePosixPath(name)
    if not name or path.is_absolute() or ".." in path.parts or "\\" in name or "\0" in name:
        raise OutsideError(f"{kind} {name!r} leads outside the bundle {folder}: refuse this bundle or export it anew")
    return path
