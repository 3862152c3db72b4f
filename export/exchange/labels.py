"""Class names of a folder in Hugging Face layout: from timm's settings, from a file, or those of ImageNet."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from models.checkpoint import IMAGENET_CLASSES, imagenet_ids, imagenet_labels
from models.common.errors import HalftoneError
from models.common.text import controls
from models.resolve import read_labels

Names = tuple[str, ...]


def class_names(
    config: dict[str, Any], settings: dict[str, Any], ids: list[str] | None, file: Path | None, origin: Path
) -> tuple[Names, Names]:
    """Return the labels and label ids, by output index.

    1,000 classes without names are ImageNet's, as in timm.

    Args:
        config: the whole configuration.
        settings: `pretrained_cfg` of the configuration, which holds the names in older versions of timm.
        ids: label ids from the section `halftone`; None without that section.
        file: one class name per line; overrides the names of the configuration.
        origin: path of the configuration, for messages.

    Raises:
        HalftoneError: there are no names, their number is not that of the outputs, or the file has names of the
            configuration in another order.
    """
    count = config.get("num_classes", settings.get("num_classes"))
    own = _listed(config.get("label_names") or settings.get("label_names"), origin)
    names = read_labels(file) if file else own
    if not names and count == IMAGENET_CLASSES:
        return imagenet_labels(), imagenet_ids()
    if not names:
        raise HalftoneError(
            f"{origin} names none of its {count} classes: give a file with one name per line, in the order of the "
            "outputs, with --labels FILE"
        )
    if odd := next((each for each in names if controls(each)), None):
        raise HalftoneError(
            f"{file or origin} has the class {odd!r}, which contains a control character or a line end: rename it"
        )
    if len(names) != count:
        raise HalftoneError(f"{file or origin} has {len(names)} class names for {count} outputs: give {count} names")
    described = _described(own, config.get("label_descriptions") or settings.get("label_descriptions"))
    if file:
        _check_order(file, names, (own, described[0]), origin)
    return (names, tuple(ids or ())) if ids is not None or file else described


def _check_order(file: Path, names: Names, sources: tuple[Names, ...], origin: Path) -> None:
    """Refuse names of the weights' source at other outputs than there; other names, such as translations, are fine."""
    for source in (each for each in sources if len(each) == len(names)):
        places = {name.casefold(): index for index, name in enumerate(source)}
        for index, name in enumerate(names):
            place = places.get(name.casefold(), index)
            if place != index and source[index].casefold() != name.casefold():
                raise HalftoneError(
                    f"--labels {file} names output {index} {name!r}, and {origin} has {name!r} at output {place} and "
                    f"{source[index]!r} here: omit --labels, or put the file's lines in the order of {origin.name}"
                )


def _listed(values: Any, origin: Path) -> Names:
    """Return names from a list, or from an object that maps every index to a name."""
    if isinstance(values, dict):
        if sorted(values) != sorted(map(str, range(len(values)))):
            raise HalftoneError(f"{origin}: label_names has gaps: name every output index from 0 to {len(values) - 1}")
        values = [values[str(index)] for index in range(len(values))]
    return tuple(map(str, values or ()))


def _described(names: Names, descriptions: Any) -> tuple[Names, Names]:
    """Return the descriptions as labels and timm's names as ids (WordNet's for ImageNet), if all are distinct."""
    if not isinstance(descriptions, dict) or not set(names) <= descriptions.keys():
        return names, ()
    described = tuple(str(descriptions[name]) for name in names)
    return (described, names) if len(set(described)) == len(described) else (names, ())
