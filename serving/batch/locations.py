"""Files of this machine, of a shared folder or of a bucket, by path or URI.

pyarrow reads and writes `s3://`, `gs://`, `hdfs://` and `file://`; the fsspec package of their scheme other URIs.
"""

from __future__ import annotations

import contextlib
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pyarrow as pa
from pyarrow import fs

from models.common.files import atomic_path


def file_system(location: str) -> tuple[fs.FileSystem, str]:
    """Return the file system of a path or URI, and the path in it.

    Raises:
        OSError, ValueError, ImportError, pyarrow.ArrowException: there is none, or it can't be reached.
    """
    if "://" not in location:
        return fs.LocalFileSystem(), Path(location).absolute().as_posix().rstrip("/")
    try:
        files, root = fs.FileSystem.from_uri(location)
    except pa.ArrowException:
        import fsspec

        other, root = fsspec.core.url_to_fs(location)
        files = fs.PyFileSystem(fs.FSSpecHandler(other))
    return files, root.rstrip("/")


def exists(files: fs.FileSystem, path: str) -> bool:
    """Return True if there is a file or folder of this path."""
    return bool(files.get_file_info(path).type != fs.FileType.NotFound)


@contextlib.contextmanager
def writing(files: fs.FileSystem, path: str) -> Iterator[pa.NativeFile]:
    """Yield a stream whose content appears under the path in one step when the block ends, and not after an error.

    A bucket gets it under another name first: what breaks during the upload would have the right name otherwise.

    Raises:
        OSError: it can't be written.
    """
    if isinstance(files, fs.LocalFileSystem):
        with atomic_path(Path(path)) as temporary, pa.OSFile(str(temporary), "wb") as stream:
            yield stream
        return
    with tempfile.NamedTemporaryFile() as local:
        with pa.OSFile(local.name, "wb") as stream:
            yield stream
        upload = f"{path}.upload"
        fs.copy_files(local.name, upload, source_filesystem=fs.LocalFileSystem(), destination_filesystem=files)
        files.move(upload, path)
