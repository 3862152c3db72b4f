"""The bundle: one folder that flows through training, export, parity and serving.

Every file but the manifest is listed in the manifest with its SHA-256. A file is read through `Bundle.read`, which
returns exactly the bytes that were checked, so that what is deserialised later is what was hashed.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import os
import shutil
import tempfile
from collections.abc import Iterator, Sequence
from io import BufferedReader
from pathlib import Path, PurePosixPath
from typing import Self

from models.bundle.errors import (
    BundleError,
    BundleMissingError,
    FileMissingError,
    HashMismatchError,
    OutsideError,
    SchemaError,
    StaleError,
    SymlinkError,
)
from models.bundle.manifest import FILE_NAME, MAX_BYTES, FileRecord, Manifest, check_names, inside
from models.bundle.onnx_external import external_locations
from models.common.errors import HalftoneError
from models.common.files import atomic_path, open_plain, sha256, sha256_file, write_atomic

__all__ = [
    "WEIGHTS",
    "Bundle",
    "BundleError",
    "BundleMissingError",
    "FileMissingError",
    "HashMismatchError",
    "OutsideError",
    "SchemaError",
    "StaleError",
    "SymlinkError",
]

WEIGHTS = "weights.safetensors"


class Bundle:
    """An opened bundle: its folder and its validated manifest."""

    def __init__(self, folder: Path, manifest: Manifest) -> None:
        self.folder = folder
        self.manifest = manifest

    @classmethod
    @contextlib.contextmanager
    def creating(cls, folder: Path, manifest: Manifest) -> Iterator[Self]:
        """Yield a new bundle of nothing but its manifest; on success it becomes `folder`, on an error it is gone.

        Raises:
            BundleError: the folder holds something already.
        """
        taken = f"{folder} is not empty: remove it, or choose another place for the new bundle"
        if folder.exists() and not (folder.is_dir() and not any(folder.iterdir())):
            raise BundleError(taken)
        folder.parent.mkdir(parents=True, exist_ok=True)
        temporary = Path(tempfile.mkdtemp(dir=folder.parent, prefix=f".{folder.name}."))
        try:
            temporary.chmod(0o755)
            write_atomic(temporary / FILE_NAME, manifest.to_json())
            bundle = cls(temporary, manifest)
            yield bundle
            try:
                temporary.replace(folder)
            except OSError:
                # Another command made a bundle there in the meantime.
                raise BundleError(taken) from None
            bundle.folder = folder
        finally:
            shutil.rmtree(temporary, ignore_errors=True)

    @classmethod
    def open(cls, folder: Path) -> Self:
        """Read and validate the manifest, and every path in it; contents are checked when they are read.

        Raises:
            BundleMissingError, SchemaError, OutsideError, SymlinkError, FileMissingError: see there.
        """
        bundle = cls(folder, _read_manifest(folder))
        for name in bundle.manifest.files:
            bundle.locate(name)
        return bundle

    def locate(self, name: str) -> Path:
        """The path of a listed file, which exists inside the bundle and is not a link; its content is not checked.

        Raises:
            OutsideError, SymlinkError, FileMissingError: see there.
        """
        record = self.manifest.files.get(name)
        if record is None:
            raise FileMissingError(f"the bundle {self.folder} has no {name}: make it with {self._maker(name)}")
        path = self._plain(name)
        if not path.is_file():
            raise FileMissingError(f"{path} is missing: make it again with {record.made_by}")
        return path

    def read(self, name: str) -> bytes:
        """The content of a listed file, checked against its hash; for an ONNX graph also its external data's places.

        Raises:
            OutsideError, SymlinkError, FileMissingError, HashMismatchError: see there.
        """
        with self._opened(name) as file:
            data = file.read()
        record = self.manifest.files[name]
        if sha256(data) != record.sha256:
            raise _mismatch(self.folder / name, record)
        if name.endswith(".onnx"):
            self._check_external_data(name, data)
        return data

    def verify(self) -> None:
        """Check the content of every listed file, also of those that nothing here reads; about 1 s for 500 MB.

        Raises:
            OutsideError, SymlinkError, FileMissingError, HashMismatchError: see there.
        """
        for name in self.manifest.files:
            self._check_content(name)

    def fresh(self, name: str) -> FileRecord:
        """The record of a listed file that was made from the present versions of its inputs.

        Raises:
            FileMissingError: it is not listed.
            StaleError: one of its inputs has changed since.
        """
        self.locate(name)
        record = self.manifest.files[name]
        for source, digest in record.made_from.items():
            current = self.manifest.files.get(source)
            if current is None or current.sha256 != digest:
                raise StaleError(
                    f"{self.folder / name} was made from another {source} than the present one: "
                    f"make it again with {record.made_by}"
                )
        return record

    def has(self, name: str) -> bool:
        """Whether the file is listed and made from the present versions of its inputs."""
        try:
            self.fresh(name)
        except (FileMissingError, StaleError):
            return False
        return True

    @contextlib.contextmanager
    def writing(self, name: str, *, made_by: str, made_from: Sequence[str] = ()) -> Iterator[Path]:
        """Yield a temporary path; on success it becomes `name` and is recorded, on an error nothing has changed.

        Args:
            name: relative path inside the bundle.
            made_by: the command that writes the file.
            made_from: names of the bundle's files that it is made from.
        """
        target = self._plain(name)
        sources = {source: self.manifest.files[source].sha256 for source in made_from}
        with contextlib.ExitStack() as held:
            with atomic_path(target) as temporary:
                yield temporary
                record = FileRecord(
                    sha256=sha256_file(temporary), size=temporary.stat().st_size, made_by=made_by, made_from=sources
                )
                # File and record change under one lock: of two commands that write it, one's file and record stay.
                held.enter_context(self._locked())
            # Another command may have added a file since this one opened the bundle: take the newest manifest.
            self.manifest = _read_manifest(self.folder).with_file(name, record)
            write_atomic(self.folder / FILE_NAME, self.manifest.to_json())

    def write(self, name: str, data: bytes, *, made_by: str, made_from: Sequence[str] = ()) -> None:
        """Write a file in one step and record it; arguments as for `writing`."""
        with self.writing(name, made_by=made_by, made_from=made_from) as path:
            path.write_bytes(data)

    @contextlib.contextmanager
    def _opened(self, name: str) -> Iterator[BufferedReader]:
        """A listed file, which has the length that the manifest says."""
        path, record = self.locate(name), self.manifest.files[name]
        try:
            with open_plain(path) as file:
                if os.fstat(file.fileno()).st_size != record.size:
                    raise _mismatch(path, record)
                yield file
        except OSError as error:
            raise BundleError(
                f"{path} can't be read ({error.strerror or error}): make it again with {record.made_by}"
            ) from None

    def _check_content(self, name: str) -> None:
        with self._opened(name) as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
        record = self.manifest.files[name]
        if digest != record.sha256:
            raise _mismatch(self.folder / name, record)

    @contextlib.contextmanager
    def _locked(self) -> Iterator[None]:
        lock = os.open(self.folder, os.O_RDONLY)
        try:
            fcntl.flock(lock, fcntl.LOCK_EX)
            yield
        finally:
            os.close(lock)

    def _plain(self, name: str) -> Path:
        """The path of a file inside the bundle, reached through no link, whether it exists or not."""
        path = self.folder / inside(name, self.folder)
        for step in (path, *path.parents):
            if step == self.folder:
                break
            if step.is_symlink():
                raise SymlinkError(
                    f"{step} is a symbolic link, and a bundle holds plain files only: put a copy of the file there"
                )
        return path

    def _check_external_data(self, name: str, graph: bytes) -> None:
        base = PurePosixPath(name).parent
        for location in external_locations(graph):
            inner = str(base / location)
            inside(inner, self.folder, kind=f"the external data of {name}")
            self._check_content(str(PurePosixPath(inner)))

    def _maker(self, name: str) -> str:
        model = self.manifest.name
        if name.startswith("parity/"):
            return f"`python -m export.parity --model {model} --variant {PurePosixPath(name).stem}`"
        if name.endswith(".onnx"):
            return f"`python -m export.onnx --model {model} --precision {name.split('.')[-2]}`"
        return f"`python -m export --model {model}`"


def _mismatch(path: Path, record: FileRecord) -> HashMismatchError:
    return HashMismatchError(
        f"the content of {path} is not what the manifest says (SHA-256 differs): make it again with {record.made_by}"
    )


def _read_manifest(folder: Path) -> Manifest:
    path = folder / FILE_NAME
    if path.is_symlink():
        raise SymlinkError(f"{path} is a symbolic link, and a bundle holds plain files only: put a copy there")
    if not path.exists():
        raise BundleMissingError(
            f"there is no bundle at {folder} (no {FILE_NAME}): make one with `python -m export --model {folder.name}`"
        )
    try:
        with open_plain(path) as file:
            manifest = Manifest.from_json(file.read(MAX_BYTES + 1))
        check_names(manifest.files, folder)
    except OSError as error:
        raise SchemaError(f"{path} can't be read: {error.strerror or 'it is not a plain file'}") from None
    except OutsideError:
        raise
    except HalftoneError as error:
        raise SchemaError(
            f"{path} can't be used: {error}; make the bundle again with `python -m export --model {folder.name}` "
            "after removing the folder"
        ) from None
    return manifest
