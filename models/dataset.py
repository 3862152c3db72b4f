"""Labelled images on disk, in one folder per class: the names of parts, what is a picture, what a model has seen."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Literal

import numpy as np
import numpy.typing as npt

from models.bundle.bundle import Bundle
from models.bundle.manifest import Manifest
from models.common.errors import HalftoneError
from models.preprocess.formats import image_format, other_format

SUFFIXES = frozenset({".jpg", ".jpeg", ".png", ".webp"})

TRAINING_PICTURES = "training_pictures.bin"
"""The bundle's file of the hashes of its training images."""

LEAST_PICTURES = 7
"""Fewest labelled images of a proof: with crops of them, they are as many as it needs."""

Part = Literal["train", "val", "test"]

PART_NAMES: Mapping[Part, frozenset[str]] = {
    "train": frozenset({"train", "training"}),
    "val": frozenset({"val", "valid", "validation", "dev"}),
    "test": frozenset({"test", "testing"}),
}
"""Names of the parts of a data set, in lower case; any case is accepted."""

Digests = npt.NDArray[np.uint64]

_HEAD = 32


def part_of(name: str) -> Part | None:
    """Return the part that a name means, in any case; None for another name."""
    return next((part for part, names in PART_NAMES.items() if name.strip().lower() in names), None)


def find_parts(root: Path, names: Iterable[str]) -> dict[Part, str]:
    """Return the name of each part that is among the names.

    Args:
        root: where they are, for the message.
        names: of folders.

    Raises:
        HalftoneError: two names mean the same part.
    """
    found: dict[Part, str] = {}
    for name in sorted(names):
        part = part_of(name)
        if part is not None and found.setdefault(part, name) != name:
            raise HalftoneError(
                f"{root} has {found[part]}/ and {name}/, and both mean the {part} part: merge or rename one of them"
            )
    return found


def folder_parts(folder: Path) -> dict[Part, str]:
    """Return the name of each sub-folder that is a part: it has the name of one and holds folders itself.

    Raises:
        HalftoneError: two mean the same part.
    """
    entries = folder.iterdir() if folder.is_dir() else ()
    return find_parts(folder, (path.name for path in entries if part_of(path.name) and _has_folders(path)))


def held_out_part(folder: Path) -> Path:
    """Return the folder of the images to evaluate on: the validation part, else the test or training part, else itself.

    Raises:
        HalftoneError: two sub-folders mean the same part.
    """
    parts = folder_parts(folder)
    return folder / next((parts[part] for part in ("val", "test", "train") if part in parts), "")


def is_picture(path: Path) -> bool:
    """Return True if the file's name is that of a JPEG, PNG or WebP file, or else its content is one."""
    return path.suffix.lower() in SUFFIXES or image_format(_head(path)) is not None


def kind_of_file(path: Path) -> str:
    """Return the name of the image format of a file that Halftone does not decode, or `no picture`."""
    return other_format(_head(path)) or "no picture"


def content_digest(content: bytes) -> bytes:
    """Return the BLAKE2b hash, 8 bytes."""
    return hashlib.blake2b(content, digest_size=8).digest()


def training_digests(bundle: Bundle) -> Digests | None:
    """Return the hashes of the bundle's training images, ascending; None if the bundle has no record of them.

    Raises:
        BundleError: the file is listed, but its content has changed.
    """
    if not bundle.has(TRAINING_PICTURES):
        return None
    return np.frombuffer(bundle.read(TRAINING_PICTURES), dtype="<u8").astype(np.uint64)


def check_folder(folder: Path) -> None:
    """Raise HalftoneError if there is no such folder of labelled images."""
    if not folder.is_dir():
        raise HalftoneError(f"--data {folder}: no such folder; it must contain one folder of pictures per class")


def unseen_images(folder: Path, bundle: Bundle) -> tuple[list[tuple[Path, int]], int]:
    """List the evaluation images that the model was not trained on; return them and the number of the others.

    Args:
        folder: as for `held_out_images`.
        bundle: the model. If it has no record of its training images, all are listed.

    Raises:
        HalftoneError: the folder can't be used, the model was trained on every image, or fewer than `LEAST_PICTURES`
            are left.
    """
    pictures, seen = held_out_images(folder, bundle.manifest), _seen(bundle)
    unseen = [(path, label) for path, label in pictures if not seen or _digest(path) not in seen]
    if not unseen:
        raise HalftoneError(
            f"{bundle.name} was trained on every one of the {len(pictures)} pictures of --data {folder}: name others, "
            "such as those that were held out"
        )
    if len(unseen) < LEAST_PICTURES:
        new = " that the model was not trained on" if len(unseen) < len(pictures) else ""
        raise HalftoneError(
            f"--data {folder} holds {len(unseen)} pictures{new}, and a proof takes at least {LEAST_PICTURES}: "
            "add more, or omit --data to prove on the sample photographs"
        )
    return unseen, len(pictures) - len(unseen)


def training_images(folder: Path, bundle: Bundle) -> list[Path]:
    """List the images of a folder that no proof of the bundle is made on, in the order of their paths.

    Those of its training part; if that is not apart from the evaluation images, those that the model was trained on.

    Raises:
        HalftoneError: two sub-folders mean the same part.
    """
    held_out, training = held_out_part(folder), folder_parts(folder).get("train")
    if training and (folder / training).resolve() != held_out.resolve():
        return images(folder / training)
    seen = _seen(bundle)
    return [path for path in images(held_out) if _digest(path) in seen] if seen else []


def images(folder: Path) -> list[Path]:
    """List the images anywhere in a folder, in the order of their paths."""
    return [path for path in sorted(folder.rglob("*")) if path.is_file() and is_picture(path)]


def held_out_images(folder: Path, manifest: Manifest) -> list[tuple[Path, int]]:
    """List the evaluation images with their class indices, in a stable order.

    Args:
        folder: contains one folder per class, named by the model's label or label id. If it contains a validation
            part, a test part or a training part (`PART_NAMES`), the first of these is used instead.
        manifest: of the model to evaluate.

    Raises:
        HalftoneError: the folder does not exist, a class folder matches no label, or there are no images.
    """
    check_folder(folder)
    root = held_out_part(folder)
    classes = sorted(path for path in root.iterdir() if path.is_dir() and not path.name.startswith("."))
    index = _index(manifest)
    unknown = [path.name for path in classes if path.name not in index]
    if unknown:
        known = ", ".join(manifest.labels[:5]) + (", …" if len(manifest.labels) > 5 else "")
        raise HalftoneError(
            f"{root} has {len(unknown)} folders that match no class of {manifest.name}, such as {unknown[0]!r}: "
            f"name the folders after the model's labels ({known})"
        )
    pictures = [(path, index[folder_.name]) for folder_ in classes for path in images(folder_)]
    if not pictures:
        loose = sum(path.is_file() and is_picture(path) for path in root.iterdir())
        found = f"{loose} pictures but no class folders" if loose else "no pictures"
        raise HalftoneError(f"{root} holds {found}: it must contain one folder of JPEG, PNG or WebP files per class")
    return pictures


def _has_folders(folder: Path) -> bool:
    return folder.is_dir() and any(path.is_dir() and not path.name.startswith(".") for path in folder.iterdir())


def _head(path: Path) -> bytes:
    try:
        with path.open("rb") as file:
            return file.read(_HEAD)
    except OSError:
        return b""


def _seen(bundle: Bundle) -> set[int]:
    """Return the hashes of the bundle's training images; none if it has no record of them."""
    digests = training_digests(bundle)
    return set() if digests is None else set(digests.tolist())


def _digest(path: Path) -> int:
    """Return the file's hash; 0, which is no hash of the record, if it can't be read."""
    try:
        return int.from_bytes(content_digest(path.read_bytes()), "little")
    except OSError:
        return 0


def _index(manifest: Manifest) -> Mapping[str, int]:
    by_id = {name: index for index, name in enumerate(manifest.label_ids)}
    return by_id | {name: index for index, name in enumerate(manifest.labels)}
