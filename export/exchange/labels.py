"""The classes of a folder in Hugging Face layout: timm's settings, a file of the user's, or ImageNet's."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from models.checkpoint import IMAGENET_CLASSES, imagenet_ids, imagenet_labels
from models.common.errors import HalftoneError

Names = tuple[str, ...]


def class_names(
    config: dict[str, Any], settings: dict[str, Any], ids: list[str] | None, file: Path | None, origin: Path
) -> tuple[Names, Names]:
    """The labels and label ids, by output index.

    Where there are 1,000 classes without names they are ImageNet's, as timm takes them to be.

    Args:
        config: the whole configuration.
        settings: its `pretrained_cfg`, where older versions of timm keep the names.
        ids: label ids from the section `halftone`; None without that section.
        file: one class name a line, in place of what the configuration says.
        origin: the configuration's path, for the messages.

    Raises:
        HalftoneError: there are no names, or not as many as classes.
    """
    count = config.get("num_classes", settings.get("num_classes"))
    names = _from_file(file) if file else _listed(config.get("label_names") or settings.get("label_names"), origin)
    if not names and count == IMAGENET_CLASSES:
        return imagenet_labels(), imagenet_ids()
    if not names:
        raise HalftoneError(
            f"{origin} names none of its {count} classes: give a file with one name a line, by output index, with "
            "--labels FILE"
        )
    if len(names) != count:
        raise HalftoneError(f"{file or origin} has {len(names)} class names for {count} outputs: give as many")
    if ids is not None or file:
        return names, tuple(ids or ())
    return _described(names, config.get("label_descriptions") or settings.get("label_descriptions"))


def _listed(values: Any, origin: Path) -> Names:
    """Names from a list, or from an object of index to name without a gap."""
    if isinstance(values, dict):
        if sorted(values) != sorted(map(str, range(len(values)))):
            raise HalftoneError(f"{origin}: label_names has gaps: name every output index from 0 to {len(values) - 1}")
        values = [values[str(index)] for index in range(len(values))]
    return tuple(map(str, values or ()))


def _described(names: Names, descriptions: Any) -> tuple[Names, Names]:
    """timm's names are ids (WordNet's for ImageNet) where there is a distinct description of each."""
    if not isinstance(descriptions, dict) or not set(names) <= descriptions.keys():
        return names, ()
    described = tuple(str(descriptions[name]) for name in names)
    return (described, names) if len(set(described)) == len(described) else (names, ())


def _from_file(path: Path) -> Names:
    if not path.is_file():
        raise HalftoneError(f"--labels {path}: no such file; it must hold one class name a line, by output index")
    return tuple(line.strip() for line in path.read_text(encoding="utf-8").splitlines() if line.strip())
