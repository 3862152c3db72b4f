"""Input images of a local folder or a bucket: listed once in a fixed order, and read one by one.

pyarrow reads `s3://`, `gs://`, `hdfs://` and `file://`; the fsspec package of their scheme reads other URIs.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path, PurePosixPath

from pyarrow import ArrowException, fs

from models.common.errors import HalftoneError

SUFFIXES = frozenset(
    (".avif", ".bmp", ".gif", ".heic", ".heif", ".jfif", ".jpe", ".jpeg", ".jpg", ".png", ".tif", ".tiff", ".webp")
)
"""Suffixes of the files to score; a file that is neither JPEG, PNG nor WebP gets a row with that error."""


class Pictures:
    """The files under a folder with the suffix of an image, in any case.

    Args:
        location: path of a folder, or a URI.

    Raises:
        HalftoneError: the folder does not exist or can't be reached.
    """

    def __init__(self, location: str) -> None:
        self.location = location
        try:
            self._files, self._root = _file_system(location)
            kind = self._files.get_file_info(self._root).type
        except (OSError, ValueError, ImportError, ArrowException) as error:
            raise HalftoneError(f"--input {location} can't be reached: {_reason(error)}") from None
        if kind != fs.FileType.Directory:
            raise HalftoneError(f"--input {location} is not a folder: name one that holds pictures")

    def names(self) -> list[str]:
        """Return the paths relative to the folder, with `/` between, in the order of their characters.

        Raises:
            HalftoneError: the folder can't be listed, holds no image, or holds a name that isn't UTF-8.
        """
        try:
            names = sorted(self._list())
        except (OSError, ArrowException) as error:
            raise HalftoneError(f"--input {self.location} can't be listed: {_reason(error)}") from None
        except UnicodeDecodeError as error:
            raise HalftoneError(
                f"--input {self.location} holds a file whose name is not UTF-8 ({error.object!r}): rename it"
            ) from None
        if not names:
            known = " ".join(sorted(SUFFIXES))
            raise HalftoneError(f"--input {self.location} holds no picture, that is no file that ends in {known}")
        return names

    def read(self, name: str, limit: int) -> bytes:
        """Return at most the first `limit` bytes of an image.

        Raises:
            OSError: the file can't be read.
        """
        with self._files.open_input_stream(f"{self._root}/{name}") as stream:
            data: bytes = stream.read(limit)
        return data

    def _list(self) -> Iterator[str]:
        prefix = f"{self._root}/"
        for info in self._files.get_file_info(fs.FileSelector(self._root, recursive=True)):
            if info.type == fs.FileType.File and PurePosixPath(info.path).suffix.lower() in SUFFIXES:
                yield info.path.removeprefix(prefix)


def _file_system(location: str) -> tuple[fs.FileSystem, str]:
    if "://" not in location:
        return fs.LocalFileSystem(), Path(location).absolute().as_posix().rstrip("/")
    try:
        files, root = fs.FileSystem.from_uri(location)
    except ArrowException:
        import fsspec

        other, root = fsspec.core.url_to_fs(location)
        files = fs.PyFileSystem(fs.FSSpecHandler(other))
    return files, root.rstrip("/")


def _reason(error: Exception) -> str:
    return " ".join(str(error).split())
