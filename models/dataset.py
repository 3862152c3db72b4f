"""Labelled images on disk, in one folder per class."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from models.bundle.manifest import Manifest
from models.common.errors import HalftoneError

SUFFIXES = frozenset({".jpg", ".jpeg", ".png", ".webp"})
HELD_OUT = ("val", "validation", "test")


def check_folder(folder: Path) -> None:
    """Raise HalftoneError if there is no such folder of labelled images."""
    if not folder.is_dir():
        raise HalftoneError(f"--data {folder}: no such folder; it must contain one folder of pictures per class")


def held_out_images(folder: Path, manifest: Manifest) -> list[tuple[Path, int]]:
    """List the evaluation images with their class indices, in a stable order.

    Args:
        folder: contains one folder per class, named by the model's label or label id. If it contains a folder `val`,
            `validation` or `test`, that one is used instead.
        manifest: of the model to evaluate.

    Raises:
        HalftoneError: the folder does not exist, a class folder matches no label, or there are no images.
    """
    check_folder(folder)
    root = next((folder / name for name in HELD_OUT if (folder / name).is_dir()), folder)
    classes = sorted(path for path in root.iterdir() if path.is_dir() and not path.name.startswith("."))
    index = _index(manifest)
    unknown = [path.name for path in classes if path.name not in index]
    if unknown:
        known = ", ".join(manifest.labels[:5]) + (", …" if len(manifest.labels) > 5 else "")
        raise HalftoneError(
            f"{root} has {len(unknown)} folders that match no class of {manifest.name}, such as {unknown[0]!r}: "
            f"name the folders after the model's labels ({known})"
        )
    pictures = [
        (path, index[folder_.name])
        for folder_ in classes
        for path in sorted(folder_.rglob("*"))
        if path.suffix.lower() in SUFFIXES and path.is_file()
    ]
    if not pictures:
        raise HalftoneError(
            f"{root} holds no pictures: it must contain one folder of JPEG, PNG or WebP files per class"
        )
    return pictures


def _index(manifest: Manifest) -> Mapping[str, int]:
    by_id = {name: index for index, name in enumerate(manifest.label_ids)}
    return by_id | {name: index for index, name in enumerate(manifest.labels)}
