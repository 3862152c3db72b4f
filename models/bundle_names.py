"""The names of a bundle's files: plain relative paths that lie inside it on every system."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path, PurePosixPath

from models.bundle_errors import OutsideError
from models.errors import HalftoneError
from models.manifest import FILE_NAME

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
