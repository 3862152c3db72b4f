"""Folder of collected pictures within limits: its oldest pictures make room for new ones.

Several workers, and a command that deletes, may work in it at once: each takes the folder's lock for an operation.
"""

from __future__ import annotations

import contextlib
import fcntl
import math
import os
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from models.common.errors import HalftoneError
from models.preprocess.collected import is_collected

_LOCK, _WRITING = ".lock", ".writing"
_DAY = 86_400


@dataclass(frozen=True, kw_only=True)
class Limits:
    """Most that a folder may hold."""

    size: int
    """Bytes of all pictures."""

    pictures: int
    days: float
    """Age of a picture, from its writing."""


UNLIMITED = Limits(size=sys.maxsize, pictures=sys.maxsize, days=math.inf)


@dataclass(frozen=True, kw_only=True)
class Contents:
    """What a folder holds."""

    pictures: int
    size: int
    """Bytes."""

    oldest: float | None
    """Unix time; None without pictures."""

    def description(self) -> dict[str, Any]:
        """Return the contents as JSON-ready values, with the time in UTC."""
        oldest = None if self.oldest is None else datetime.fromtimestamp(self.oldest, UTC)
        return {
            "pictures": self.pictures,
            "bytes": self.size,
            "oldest": oldest and oldest.isoformat(timespec="seconds"),
        }


class Store:
    """Pictures in a folder. Every method raises an OSError if the folder is gone or can't be written.

    Args:
        folder: exists (`make_folder`); files with other names in it are left alone.
        limits: never exceeded, not even while a picture is written.
    """

    def __init__(self, folder: Path, limits: Limits) -> None:
        self._folder = folder
        self._limits = limits
        self._files: dict[str, tuple[int, float]] = {}
        self._size = 0
        self._stamp = -1

    def add(self, name: str, data: bytes) -> bool:
        """Write a picture in one step: after a crash, the folder holds all of it or nothing.

        Args:
            name: of the file, as `file_name` returns it.
            data: its content.

        Returns:
            False if the folder has the picture already, or if it is larger than the limit.
        """
        with self._locked():
            self._expire()
            if name in self._files or len(data) > self._limits.size:
                return False
            # Before the write, so that the limits hold meanwhile.
            self._shrink(self._limits.size - len(data), self._limits.pictures - 1)
            self._write(name, data)
            return True

    def has(self, name: str) -> bool:
        """Return True if the folder has this picture; a wrong answer is possible and does no harm."""
        return name in self._files

    def tidy(self) -> None:
        """Delete the pictures that are too old or beyond the limits."""
        with self._locked():
            self._expire()
            self._shrink(self._limits.size, self._limits.pictures)

    def clear(self) -> int:
        """Delete all pictures; return their number."""
        with self._locked():
            count = len(self._files)
            self._shrink(0, 0)
            return count

    def contents(self) -> Contents:
        """Count the pictures."""
        with self._locked():
            times = [written for _, written in self._files.values()]
            return Contents(pictures=len(times), size=self._size, oldest=min(times, default=None))

    @contextlib.contextmanager
    def _locked(self) -> Iterator[None]:
        """Hold the folder's lock; know its files at the beginning."""
        descriptor = os.open(self._folder / _LOCK, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
        try:
            # Some network file systems have no locks.
            with contextlib.suppress(OSError):
                fcntl.flock(descriptor, fcntl.LOCK_EX)
            if self._folder.stat().st_mtime_ns != self._stamp:
                self._scan()
            try:
                yield
            finally:
                # A time that no other process gives the folder: one that finds another time reads the folder again.
                now = time.time_ns()
                os.utime(self._folder, ns=(now, now))
                self._stamp = self._folder.stat().st_mtime_ns
        finally:
            os.close(descriptor)

    def _scan(self) -> None:
        found = []
        with os.scandir(self._folder) as entries:
            for entry in entries:
                # Another process may delete it without the lock, as `rm` does.
                with contextlib.suppress(FileNotFoundError):
                    if is_collected(entry.name) and entry.is_file(follow_symlinks=False):
                        status = entry.stat(follow_symlinks=False)
                        found.append((status.st_mtime, entry.name, status.st_size))
        self._files = {name: (size, written) for written, name, size in sorted(found)}
        self._size = sum(size for _, _, size in found)

    def _expire(self) -> None:
        oldest = time.time() - self._limits.days * _DAY
        for name in [name for name, (_, written) in self._files.items() if written < oldest]:
            self._delete(name)

    def _shrink(self, size: int, pictures: int) -> None:
        while self._files and (self._size > size or len(self._files) > pictures):
            self._delete(next(iter(self._files)))

    def _delete(self, name: str) -> None:
        (self._folder / name).unlink(missing_ok=True)
        size, _ = self._files.pop(name)
        self._size -= size

    def _write(self, name: str, data: bytes) -> None:
        temporary = self._folder / _WRITING
        # One name for all: whatever a killed process has left there is written over.
        flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC | os.O_NOFOLLOW
        try:
            with open(os.open(temporary, flags, 0o600), "wb") as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
            temporary.replace(self._folder / name)
        except OSError:
            with contextlib.suppress(OSError):
                temporary.unlink()
            raise
        self._files[name] = (len(data), time.time())
        self._size += len(data)


def make_folder(folder: Path) -> None:
    """Create the folder if it is missing, for its user alone, and check that it can be written.

    Raises:
        HalftoneError: it can't be made or written.
    """
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        os.close(os.open(folder / _LOCK, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600))
    except OSError as error:
        raise HalftoneError(
            f"HALFTONE_COLLECT: {folder.absolute()} can't be written ({error.strerror}): name a folder that can be, "
            "or change its rights"
        ) from None
