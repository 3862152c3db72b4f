"""Atomic writes of files and folders, locks, content hashes, and reading that accepts regular files only.

A process holds a lock on each of its temporary files and folders. The next write to the same target removes those that
a killed process has left: the system has released their locks.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import hashlib
import os
import re
import secrets
import shutil
import stat
import tempfile
from collections import defaultdict
from collections.abc import Iterator
from functools import cache
from io import BufferedReader
from pathlib import Path

from models.common.errors import HalftoneError

# The names of temporary files and folders: those of other programs have no eight hexadecimal digits there.
_TEMPORARY = re.compile(r"\.(?P<stem>.+)\.[0-9a-f]{8}(?P<suffix>\.[^.]+)?", re.DOTALL)

# Time of a temporary file that nothing was written to.
_UNTOUCHED = 0


_MAX_NAME, _MAX_PATH = 255, 4095


def check_length(path: Path, what: str) -> None:
    """Refuse a path that no file system takes.

    Args:
        path: the path, which need not exist.
        what: gave it, for the message, such as `--output`.

    Raises:
        HalftoneError: a name in it, or all of it, is too long.
    """
    longest = max((len(os.fsencode(part)) for part in path.parts), default=0)
    if longest > _MAX_NAME or len(os.fsencode(path)) > _MAX_PATH:
        raise HalftoneError(
            f"{what}: {str(path)[:60]}… is too long for a file system, which takes names of {_MAX_NAME} bytes and "
            f"paths of {_MAX_PATH}: choose a shorter one"
        )


def check_writable(path: Path, what: str) -> None:
    """Refuse a file or folder that can't be written, before the work whose result it is for.

    Args:
        path: the path; it and its folders need not exist.
        what: gave it, for the message, such as `--output`.

    Raises:
        HalftoneError: its nearest existing parent is no folder, or nothing can be written there.
    """
    # Not Path.exists, which raises for a folder that can't be searched.
    parent = next(each for each in path.absolute().parents if os.path.exists(each))
    try:
        with tempfile.TemporaryFile(dir=parent):
            pass
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise
        raise HalftoneError(
            f"{what} {path}: {parent} can't be written ({error.strerror}): choose another place, or change its rights"
        ) from None


def sha256(data: bytes | memoryview) -> str:
    """Return the SHA-256 of `data` as 64 lower-case hexadecimal digits."""
    return hashlib.sha256(data).hexdigest()


def sha256_file(path: Path) -> str:
    """Return the SHA-256 of the file's content as 64 lower-case hexadecimal digits, reading it in pieces."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def open_plain(path: Path) -> BufferedReader:
    """Open a regular file for reading, without following a symbolic link or blocking on a pipe or device.

    Raises:
        OSError: the file does not exist, is not a regular file, or may not be read.
    """
    descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise OSError(f"{path} is not a regular file")
    return open(descriptor, "rb")


@contextlib.contextmanager
def atomic_path(path: Path) -> Iterator[Path]:
    """Yield an empty temporary file in the same folder; rename it to `path` on success, delete it on an error.

    The content is flushed to disk before the rename and the folder after it. A crash therefore leaves the old file or
    the new one, never a part.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    # A name that is almost too long leaves no room for the eight digits.
    stem = path.stem if len(os.fsencode(path.name)) <= _MAX_NAME - 10 else sha256(os.fsencode(path.stem))
    _remove_leftovers(path.parent, stem, path.suffix)
    with contextlib.ExitStack() as lock:
        temporary = _claim(path.parent, stem, path.suffix, lock, folder=False)
        try:
            yield temporary
            if temporary.stat().st_mtime_ns == _UNTOUCHED:
                raise FileNotFoundError(errno.ENOENT, "nothing was written", str(path))
            _flush(temporary, os.O_RDWR)
            temporary.replace(path)
            _flush(path.parent, os.O_RDONLY)
        finally:
            temporary.unlink(missing_ok=True)


@contextlib.contextmanager
def staged_folder(folder: Path) -> Iterator[Path]:
    """Yield an empty temporary folder next to `folder`, for the caller to rename; delete it if it is still there."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    _remove_leftovers(folder.parent, folder.name, "")
    with contextlib.ExitStack() as lock:
        temporary = _claim(folder.parent, folder.name, "", lock, folder=True)
        try:
            yield temporary
        finally:
            shutil.rmtree(temporary, ignore_errors=True)


class LockedError(Exception):
    """Another process holds the lock."""


@contextlib.contextmanager
def locked(path: Path) -> Iterator[None]:
    """Hold the lock file `path`, which exists only meanwhile; do without in a folder that can't be written.

    Raises:
        LockedError: another process holds it.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        descriptor = _open_locked(path)
    except OSError as error:
        if error.errno not in (errno.EACCES, errno.EPERM, errno.EROFS):
            raise
        yield
        return
    try:
        yield
    finally:
        # Before the lock is released: afterwards the file may be that of another process.
        path.unlink(missing_ok=True)
        os.close(descriptor)


def _open_locked(path: Path) -> int:
    while True:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o644)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(descriptor)
            raise LockedError(path) from None
        # The process that held the lock may have removed the file since it was opened here.
        if os.fstat(descriptor).st_nlink:
            return descriptor
        os.close(descriptor)


def write_atomic(path: Path, data: bytes) -> None:
    """Replace the content of `path` in one step."""
    with atomic_path(path) as temporary:
        temporary.write_bytes(data)


def _claim(parent: Path, stem: str, suffix: str, lock: contextlib.ExitStack, *, folder: bool) -> Path:
    """Create a temporary file or folder and lock it until `lock` is closed."""
    while True:
        path = parent / f".{stem}.{secrets.token_hex(4)}{suffix}"
        if folder:
            path.mkdir()
        flags = os.O_RDONLY if folder else os.O_RDWR | os.O_CREAT | os.O_EXCL
        try:
            descriptor = os.open(path, flags | os.O_CLOEXEC, 0o666)
        except FileNotFoundError:
            continue
        # Another process may take it for a leftover before it is locked.
        if _lock(descriptor) and path.exists():
            if not folder:
                os.utime(descriptor, ns=(_UNTOUCHED, _UNTOUCHED))
            lock.callback(os.close, descriptor)
            return path
        os.close(descriptor)


def _lock(descriptor: int) -> bool:
    """Lock an open temporary file or folder; return False if another process has locked it."""
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError:
        # Without locks (some network file systems), no leftover is removed either.
        return True
    return True


def _remove_leftovers(parent: Path, stem: str, suffix: str) -> None:
    """Remove the temporary files and folders of this target that no process has locked."""
    for path in _leftovers(parent.absolute()).pop((stem, suffix), ()):
        with contextlib.suppress(OSError):
            descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                if stat.S_ISDIR(os.fstat(descriptor).st_mode):
                    shutil.rmtree(path, ignore_errors=True)
                else:
                    path.unlink()
            finally:
                os.close(descriptor)


@cache
def _leftovers(folder: Path) -> dict[tuple[str, str], list[Path]]:
    """Map stem and suffix of a target to the temporary files in the folder when this process first wrote there.

    Only then, because many files may be written into one folder.
    """
    found: dict[tuple[str, str], list[Path]] = defaultdict(list)
    with os.scandir(folder) as entries:
        for entry in entries:
            if match := _TEMPORARY.fullmatch(entry.name):
                found[match["stem"], match["suffix"] or ""].append(Path(entry.path))
    return found


def _flush(path: Path, flags: int) -> None:
    descriptor = os.open(path, flags)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
