"""Labels from the exports of labelling tools: Label Studio's JSON, and CVAT's XML for images or its ZIP file."""

from __future__ import annotations

import io
import json
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit
from xml.etree import ElementTree

from models.common.errors import HalftoneError

CVAT_FILE = "annotations.xml"
SUFFIXES = (".json", ".xml", ".zip")


@dataclass(frozen=True, kw_only=True)
class Vote:
    """Class that one annotator gave to one picture."""

    picture: str
    """Path of the file, relative to the folder that was labelled."""

    label: str
    annotator: str


def read_votes(file: Path) -> list[Vote]:
    """Read an export; what an annotator skipped has no vote.

    Args:
        file: JSON of Label Studio, `annotations.xml` of CVAT ("CVAT for images"), or a ZIP file that holds one of them.

    Raises:
        HalftoneError: the file is none of these, or gives a picture several classes at once.
    """
    name, data = file.name, _read(file)
    try:
        if file.suffix.lower() == ".zip":
            name, data = _unpacked(data)
        votes = list(_of_cvat(data) if name.lower().endswith(".xml") else _of_label_studio(data))
    except (LookupError, TypeError, AttributeError, ValueError, ElementTree.ParseError, zipfile.BadZipFile) as error:
        if isinstance(error, HalftoneError):
            raise HalftoneError(f"{file}: {error}") from None
        raise HalftoneError(
            f"{file} is no export that can be read ({type(error).__name__}: {error}): export as `JSON` from Label "
            "Studio, or as `CVAT for images` from CVAT"
        ) from None
    if not votes:
        raise HalftoneError(f"{file} holds no labels: label some pictures, then export again")
    return votes


def _read(file: Path) -> bytes:
    try:
        return file.read_bytes()
    except OSError as error:
        raise HalftoneError(
            f"--from {file} can't be read ({error.strerror}): name a folder of collected pictures, or an export"
        ) from None


def _unpacked(data: bytes) -> tuple[str, bytes]:
    """Return name and content of the annotations in a ZIP file."""
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        found = [name for name in archive.namelist() if name.lower().endswith((".json", CVAT_FILE))]
        return found[0], archive.read(found[0])


def _of_label_studio(data: bytes) -> Iterator[Vote]:
    for task in json.loads(data):
        picture = _file(task["data"])
        for annotation in task["annotations"]:
            if annotation.get("was_cancelled") or not annotation["result"]:
                continue
            choices = [
                choice
                for each in annotation["result"]
                if each["type"] == "choices"
                for choice in each["value"]["choices"]
            ]
            yield Vote(picture=picture, label=_only(picture, choices), annotator=_annotator(annotation["completed_by"]))


def _file(data: dict[str, Any]) -> str:
    """Return the path of a task's picture: the only value that is an address, without the part of the server."""
    address = str(data["image"])
    parts = urlsplit(address)
    return parse_qs(parts.query)["d"][0] if "d=" in parts.query else parts.path


def _annotator(completed_by: Any) -> str:
    """Return the address of the annotator, or the number if the export has only that."""
    return str(completed_by.get("email") or completed_by["id"] if isinstance(completed_by, dict) else completed_by)


def _of_cvat(data: bytes) -> Iterator[Vote]:
    root = ElementTree.fromstring(data)
    names = [each.text for path in ("assignee", "owner") for each in root.iterfind(f"meta//{path}/username")]
    annotator = next((name for name in names if name), "")
    for image in root.iterfind("image"):
        labels = [tag.attrib["label"] for tag in image.iterfind("tag")]
        if labels:
            picture = image.attrib["name"]
            yield Vote(picture=picture, label=_only(picture, labels), annotator=annotator)


def _only(picture: str, labels: list[str]) -> str:
    if len(set(labels)) != 1:
        raise HalftoneError(f"{picture} has the classes {', '.join(labels)}, and a picture has one: leave one of them")
    return labels[0]
