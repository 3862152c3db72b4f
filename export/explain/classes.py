"""The class that a user names, by its label, its label id or its index."""

from __future__ import annotations

import difflib

from models.bundle.manifest import Manifest
from models.common.errors import HalftoneError

_MOST_CHARACTERS = 200
_MOST_DIGITS = 9


def class_index(manifest: Manifest, label: str) -> int:
    """Return the output index of a label, of a label id, or of the index itself if no class has it as its name.

    Raises:
        HalftoneError: the model has no such class; the message suggests the nearest names.
    """
    for names in (manifest.labels, manifest.label_ids):
        if label in names:
            return names.index(label)
    count = len(manifest.labels)
    if label.isascii() and label.isdigit() and len(label) <= _MOST_DIGITS:
        if int(label) < count:
            return int(label)
        raise HalftoneError(f"{manifest.name} has no class {label}: choose one from 0 to {count - 1}")
    near = difflib.get_close_matches(label[:_MOST_CHARACTERS], manifest.labels, n=3, cutoff=0.5)
    hint = f"did you mean {' or '.join(map(repr, near))}?" if near else f"it has {', '.join(manifest.labels[:5])}, …"
    raise HalftoneError(f"{manifest.name} has no class {label[:_MOST_CHARACTERS]!r}: {hint}")
