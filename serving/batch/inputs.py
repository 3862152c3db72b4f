"""Input images of a local folder or a bucket: listed once in a fixed order, and read one by one."""

from __future__ import annotations

import mimetypes
from array import array
from pathlib import PurePosixPath

from pyarrow import ArrowException, fs

from models.common.errors import HalftoneError
from models.preprocess.formats import image_format, other_format
from serving.batch.locations import file_system

SUFFIXES = frozenset(
    (".avif", ".bmp", ".gif", ".heic", ".heif", ".jfif", ".jpe", ".jpeg", ".jpg", ".png", ".tif", ".tiff", ".webp")
)
"""Suffixes of the files to score; a file that is neither JPEG, PNG nor WebP gets a row with that error."""

_HEAD = 32


class Pictures:
    """The images under a folder: by the suffix in any case, or by the content of a file without a usual suffix.

    Args:
        location: path of a folder, or a URI.

    Raises:
        HalftoneError: the folder does not exist or can't be reached.
    """

    def __init__(self, location: str) -> None:
        self.location = location
        self.left_out: list[str] = []
        """Names of the files that are no images, hidden ones apart; filled by `listed`."""
        try:
            self._files, self._root = file_system(location)
            kind = self._files.get_file_info(self._root).type
        except (OSError, ValueError, ImportError, ArrowException) as error:
            raise HalftoneError(f"--input {location} can't be reached: {reason(error)}") from None
        if kind != fs.FileType.Directory:
            raise HalftoneError(f"--input {location} is not a folder: name one that holds pictures")

    def listed(self) -> tuple[list[str], array[int]]:
        """Return the paths relative to the folder, with `/` between, in the order of their characters; and the bytes.

        Raises:
            HalftoneError: the folder can't be listed, holds no image, or holds a name that isn't UTF-8.
        """
        try:
            files, sizes = self._list()
            order = sorted(range(len(files)), key=files.__getitem__)
            images = [each for each in order if self._is_picture(files[each])]
        except (OSError, ArrowException) as error:
            raise HalftoneError(f"--input {self.location} can't be listed: {reason(error)}") from None
        except UnicodeDecodeError as error:
            raise HalftoneError(
                f"--input {self.location} holds a file whose name is not UTF-8 ({error.object!r}): rename it"
            ) from None
        if not images:
            known = " ".join(sorted(SUFFIXES))
            raise HalftoneError(f"--input {self.location} holds no picture: no file ends in {known} or begins as one")
        kept = set(images)
        self.left_out = [files[each] for each in order if each not in kept and not _hidden(files[each])]
        return [files[each] for each in images], array("q", (sizes[each] for each in images))

    def read(self, name: str, limit: int) -> bytes:
        """Return at most the first `limit` bytes of an image.

        Raises:
            OSError: the file can't be read.
        """
        with self._files.open_input_stream(f"{self._root}/{name}") as stream:
            data: bytes = stream.read(limit)
        return data

    def _list(self) -> tuple[list[str], array[int]]:
        """Return the names of all files, and their bytes."""
        prefix, names, sizes = f"{self._root}/", [], array("q")
        for info in self._files.get_file_info(fs.FileSelector(self._root, recursive=True)):
            if info.type == fs.FileType.File:
                names.append(info.path.removeprefix(prefix))
                # A few file systems don't know it.
                sizes.append(info.size or 0)
        return names, sizes

    def _is_picture(self, name: str) -> bool:
        if PurePosixPath(name).suffix.lower() in SUFFIXES:
            return True
        # Texts, tables and archives beside the images of a bucket are not worth a request each.
        if _hidden(name) or not (mimetypes.guess_type(name)[0] or "image/").startswith("image/"):
            return False
        try:
            head = self.read(name, _HEAD)
        except OSError:
            return False
        return image_format(head) is not None or other_format(head) is not None


def _hidden(name: str) -> bool:
    return any(part.startswith(".") for part in PurePosixPath(name).parts)


def reason(error: Exception) -> str:
    """Return the message of an error as one line."""
    return " ".join(str(error).split())
