"""Bundle: the folder that training, export, parity and serving share.

The manifest lists every other file with its SHA-256. `Bundle.read` returns exactly the bytes whose hash it checked, so
that nothing unchecked is deserialised later.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import os
import re
from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import replace
from io import BufferedReader
from pathlib import Path, PurePosixPath
from typing import Self

from models.bundle.commands import in_folder
from models.bundle.errors import (
    BundleError,
    BundleMissingError,
    DamagedError,
    FileMissingError,
    HashMismatchError,
    OutsideError,
    SchemaError,
    StaleError,
    SymlinkError,
)
from models.bundle.manifest import FILE_NAME, MAX_BYTES, MAX_MADE_BY, FileRecord, Manifest, check_names, inside
from models.bundle.onnx_external import external_locations
from models.common.errors import HalftoneError
from models.common.files import atomic_path, open_plain, sha256, sha256_file, staged_folder, write_atomic

WEIGHTS = "weights.safetensors"
PROMISES = "promises.json"
EXPLAIN = "explain.onnx"

_EXPORTED = re.compile(r"README\.md|(speed|promises|drift)\.json|explain\.onnx|model\.[^/]+|parity/[^/]+\.json")
_MODEL = re.compile(r"(^`python -m export(?:\.\w+)* --model )[A-Za-z0-9._-]+(?=[ `])(?!.* --weights )")


class Bundle:
    """An opened bundle: its folder and its validated manifest."""

    def __init__(self, folder: Path, manifest: Manifest) -> None:
        self.folder = folder
        self.manifest = manifest
        self._final: Path | None = None

    @property
    def name(self) -> str:
        """The folder's name, by which every command finds the bundle; a copy's manifest has the original's name."""
        return (self._final or self.folder).absolute().name

    @classmethod
    @contextlib.contextmanager
    def creating(cls, folder: Path, manifest: Manifest) -> Iterator[Self]:
        """Yield a new bundle that has only a manifest; move it to `folder` on success, delete it on an error.

        Raises:
            BundleError: the folder exists and is not empty.
        """
        if folder.exists() and not (folder.is_dir() and not any(folder.iterdir())):
            raise _taken(folder)
        with staged_folder(folder) as temporary:
            write_atomic(temporary / FILE_NAME, manifest.to_json())
            bundle = cls(temporary, manifest)
            bundle._final = folder
            yield bundle
            try:
                temporary.replace(folder)
            except OSError:
                # Another command has created a bundle there in the meantime.
                raise _taken(folder) from None
            bundle.folder, bundle._final = folder, None

    @classmethod
    def open(cls, folder: Path) -> Self:
        """Read and validate the manifest and every path in it; `locate` and `read` check each file.

        Raises:
            BundleMissingError, SchemaError, OutsideError, SymlinkError: see `models.bundle.errors`.
            FileMissingError: the weights are missing.
        """
        bundle = cls(folder, _read_manifest(folder))
        for name in bundle.manifest.files:
            bundle._path(name)
        if WEIGHTS in bundle.manifest.files:
            bundle.locate(WEIGHTS)
        return bundle

    def locate(self, name: str) -> Path:
        """Return the path of a listed file that exists inside the bundle and is no link; do not check its content.

        Raises:
            OutsideError, SymlinkError, FileMissingError: see `models.bundle.errors`.
        """
        record = self.manifest.files.get(name)
        if record is None:
            raise FileMissingError(f"the bundle {self.folder} has no {name}: make it with {self._command_for(name)}")
        path = self._path(name)
        if not path.is_file():
            raise FileMissingError(f"{path} is missing: {self.repair(name)}")
        return path

    def read(self, name: str) -> bytes:
        """Return the content of a listed file after checking its hash, and for an ONNX graph also its external data.

        Raises:
            OutsideError, SymlinkError, FileMissingError, HashMismatchError: see `models.bundle.errors`.
        """
        with self._open_listed(name) as file:
            data = file.read()
        record = self.manifest.files[name]
        if sha256(data) != record.sha256:
            raise self._mismatch(name)
        if name.endswith(".onnx"):
            self._check_external_data(name, data)
        return data

    def damaged(self) -> dict[str, DamagedError]:
        """Check every listed file as `verify` does; return the error of each damaged one by name.

        Raises:
            OutsideError, SymlinkError: see `models.bundle.errors`.
        """
        found: dict[str, DamagedError] = {}
        for name in self.manifest.files:
            try:
                self._check_content(name)
            except DamagedError as error:
                found[name] = error
        return found

    def drop_damaged(self, groups: Iterable[Collection[str]]) -> list[str]:
        """Take files that belong together out of the manifest if one of them is damaged; return their names.

        Raises:
            OutsideError, SymlinkError: see `models.bundle.errors`.
        """
        # Under the lock, because another command may be between a file and its record.
        with self._locked():
            self.manifest = _read_manifest(self.folder)
            damaged = self.damaged()
            dropped = {name for group in groups if any(each in damaged for each in group) for name in group}
            dropped &= self.manifest.files.keys()
            if dropped:
                files = {name: record for name, record in self.manifest.files.items() if name not in dropped}
                self.manifest = replace(self.manifest, files=files)
                write_atomic(self.folder / FILE_NAME, self.manifest.to_json())
        return sorted(dropped)

    def repair(self, name: str) -> str:
        """Return what makes a damaged file of the bundle whole again, for messages."""
        if name.startswith("engines/"):
            return f"make it again with {self.command(name)}"
        if exported(name):
            return f"repair it with `{in_folder(self.folder, f'python -m export --model {self.name}')}`"
        return f"remove {self.folder}, then make it again with {self.manifest.files[name].made_by}"

    def command(self, name: str) -> str:
        """Return the command that makes a listed file of this folder again, for messages."""
        made_by = self.made_by(name)
        return f"`{in_folder(self.folder, made_by.strip('`'))}`" if _MODEL.match(made_by) else made_by

    def made_by(self, name: str) -> str:
        """Return the command that made a listed file, with the folder's name: it may be a copy of another."""
        return _MODEL.sub(rf"\g<1>{self.name}", self.manifest.files[name].made_by)

    def verify(self) -> None:
        """Check the hash of every listed file, including files that are never read; about 1 s for 500 MB.

        Raises:
            OutsideError, SymlinkError, FileMissingError, HashMismatchError: see `models.bundle.errors`.
        """
        for name in self.manifest.files:
            self._check_content(name)

    def fresh(self, name: str) -> FileRecord:
        """Return the record of a listed file that was made from the present versions of its inputs.

        Raises:
            FileMissingError: the file is not listed.
            StaleError: an input has changed since the file was made.
        """
        self.locate(name)
        record = self.manifest.files[name]
        for source, digest in record.made_from.items():
            current = self.manifest.files.get(source)
            if current is None or current.sha256 != digest:
                raise StaleError(
                    f"{self.folder / name} was made from another {source} than the present one: "
                    f"make it again with {self.command(name)}"
                )
        return record

    def has(self, name: str) -> bool:
        """Return True if the file is listed and was made from the present versions of its inputs."""
        try:
            self.fresh(name)
        except (FileMissingError, StaleError):
            return False
        return True

    def read_present(self, name: str) -> bytes | None:
        """Return the content of a file; None if it isn't listed, or was made from other versions of its inputs.

        Raises:
            OutsideError, SymlinkError, FileMissingError, HashMismatchError: it is listed, but missing or damaged.
        """
        if name not in self.manifest.files:
            return None
        try:
            self.fresh(name)
        except StaleError:
            return None
        return self.read(name)

    @contextlib.contextmanager
    def writing(self, name: str, *, made_by: str, made_from: Sequence[str] = ()) -> Iterator[Path]:
        """Yield a temporary path; on success rename it to `name` and record it, on an error change nothing.

        Args:
            name: relative path inside the bundle.
            made_by: the command that writes the file.
            made_from: names of the bundle's files that the new file is made from.
        """
        target = self._path(name)
        sources = {source: self.manifest.files[source].sha256 for source in made_from}
        with contextlib.ExitStack() as lock:
            with atomic_path(target) as temporary:
                yield temporary
                record = FileRecord(
                    sha256=sha256_file(temporary),
                    size=temporary.stat().st_size,
                    made_by=_recordable(made_by),
                    made_from=sources,
                )
                # One lock for file and record: after two concurrent writers, they belong to the same writer.
                lock.enter_context(self._locked())
            # Another command may have added a file since this one opened the bundle: use the newest manifest.
            self.manifest = _read_manifest(self.folder).with_file(name, record)
            write_atomic(self.folder / FILE_NAME, self.manifest.to_json())

    def write(self, name: str, data: bytes, *, made_by: str, made_from: Sequence[str] = ()) -> None:
        """Write a file in one step and record it; arguments as for `writing`."""
        with self.writing(name, made_by=made_by, made_from=made_from) as path:
            path.write_bytes(data)

    @contextlib.contextmanager
    def _open_listed(self, name: str) -> Iterator[BufferedReader]:
        """Open a listed file whose length is that of the manifest."""
        path, record = self.locate(name), self.manifest.files[name]
        try:
            with open_plain(path) as file:
                if os.fstat(file.fileno()).st_size != record.size:
                    raise self._mismatch(name)
                yield file
        except OSError as error:
            raise DamagedError(f"{path} can't be read ({error.strerror or error}): {self.repair(name)}") from None

    def _check_content(self, name: str) -> None:
        with self._open_listed(name) as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
        if digest != self.manifest.files[name].sha256:
            raise self._mismatch(name)

    @contextlib.contextmanager
    def _locked(self) -> Iterator[None]:
        if self._final:
            # Nothing else knows of a bundle that is being created.
            yield
            return
        descriptor = os.open(self.folder, os.O_RDONLY)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX)
            yield
        finally:
            os.close(descriptor)

    def _path(self, name: str) -> Path:
        """Return the path of a file inside the bundle that involves no symbolic link; the file need not exist."""
        path = self.folder / inside(name, self.folder)
        for part in (path, *path.parents):
            if part == self.folder:
                break
            if part.is_symlink():
                raise SymlinkError(
                    f"{part} is a symbolic link, and a bundle may contain regular files only: replace it with a copy"
                )
        return path

    def _check_external_data(self, name: str, graph: bytes) -> None:
        base = PurePosixPath(name).parent
        for location in external_locations(graph):
            inner = str(base / location)
            inside(inner, self.folder, kind=f"the external data of {name}")
            self._check_content(str(PurePosixPath(inner)))

    def _mismatch(self, name: str) -> HashMismatchError:
        return HashMismatchError(
            f"the content of {self.folder / name} differs from the manifest (SHA-256 mismatch): {self.repair(name)}"
        )

    def _command_for(self, name: str) -> str:
        if name.startswith("parity/"):
            words = f"export.parity --model {self.name} --variant {PurePosixPath(name).stem}"
        elif name.endswith(".onnx") and name != EXPLAIN:
            words = f"export.onnx --model {self.name} --precision {name.split('.')[-2]}"
        elif name.startswith("engines/"):
            runtime, _, precision = PurePosixPath(name).stem.rpartition("-")
            words = f"export.trt --model {self.name} --precision {precision} --runtime {runtime}"
        else:
            words = f"export --model {self.name}"
        return f"`{in_folder(self.folder, f'python -m {words}')}`"


def _recordable(command: str) -> str:
    """Return a command as the manifest takes it, whatever a path in it contains."""
    text = "".join(each if each.isprintable() else each.encode("unicode_escape").decode() for each in command)
    return text if len(text) <= MAX_MADE_BY else f"{text[: MAX_MADE_BY - 1]}…"


def exported(name: str) -> bool:
    """Return True if `python -m export` makes this file of a bundle: a graph, a record of one, speeds, the card."""
    return _EXPORTED.fullmatch(name) is not None


def _taken(folder: Path) -> BundleError:
    if (folder / FILE_NAME).exists():
        return BundleError(
            f"{folder} is not empty, it holds a bundle already: use that one, or choose another folder for the new one"
        )
    return BundleError(f"{folder} is not empty: remove it, or choose another folder for the new bundle")


def _read_manifest(folder: Path) -> Manifest:
    path = folder / FILE_NAME
    if path.is_symlink():
        raise SymlinkError(
            f"{path} is a symbolic link, and a bundle may contain regular files only: replace it with a copy"
        )
    if not path.exists():
        raise BundleMissingError(
            f"there is no bundle at {folder} (no {FILE_NAME}): create it with `python -m export --model {folder.name}`"
        )
    try:
        with open_plain(path) as file:
            manifest = Manifest.from_json(file.read(MAX_BYTES + 1))
        check_names(manifest.files, folder)
    except OSError as error:
        raise SchemaError(f"{path} can't be read: {error.strerror or 'it is not a regular file'}") from None
    except OutsideError:
        raise
    except HalftoneError as error:
        raise SchemaError(
            f"{path} can't be used: {error}; remove the folder, then create the bundle again with "
            f"`{in_folder(folder, f'python -m export --model {folder.name}')}`"
        ) from None
    return manifest
