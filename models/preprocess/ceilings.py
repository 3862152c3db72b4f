"""Ceilings on the parts of an image file that take time or memory without adding pixels.

A file of a few kilobytes can otherwise occupy a decoder for minutes (https://bugzilla.redhat.com/show_bug.cgi?id=1344214).
All of them are far above what cameras and programs write. `python -m loadtest.malformed` measures what the largest
allowed files cost.
"""

from __future__ import annotations

import io
import re
import time
from collections.abc import Iterator
from itertools import islice

from models.preprocess.errors import BrokenImageError, TooComplexError

MAX_SIDE = 65_535
"""Largest width or height in pixels, as in a JPEG: Pillow spends more on a row than on its pixels."""

MAX_SCANS = 100
"""Most scans of a JPEG. Programs write 10, at most 20."""

MAX_SCAN_PIXELS = 6 * 10**8
"""Most pixels of a JPEG times its scans, each of which may visit all of them again. Those in colour count twice, as
they take twice the time and memory: with the ten scans that libjpeg writes (jpeg_simple_progression in jcparam.c), 30
megapixels are allowed, and in grey, with its six, 100."""

MAX_HEADER_BYTES = 2**23
"""Most bytes before the pixels: EXIF, XMP, colour profile and the like. A photograph has some 10 kB, a portrait with a
depth map a few megabytes."""

MAX_CHUNKS = 10_000
"""Most chunks of a WebP: each frame of an animation is one."""

MAX_CPU_SECONDS = 10.0
"""Longest time on a processor for one file; the largest ones allowed take 2 s."""

_HEADER_READS = 1_536
"""Four for each segment of a JPEG, three for each chunk of a PNG; a photograph has dozens of them."""

_BYTES_A_READ = 256
"""A file with many pixels is read in many pieces: the average one must have at least this many bytes."""

_SOS = b"\xff\xda"
_EOI = 0xD9
_ARITHMETIC = frozenset({0xC9, 0xCA, 0xCD, 0xCE})
"""Frames with arithmetic codes."""
# In the data of a scan, 0xFF is followed by 0 or by the number of a restart marker.
_MARKER = re.compile(rb"\xff([^\x00\xd0-\xd7\xff])", re.DOTALL)
_MOST_MARKERS = 10_000
"""Most markers that are looked at: a progressive JPEG has some 30."""


class BoundedFile(io.BytesIO):
    """A file in memory that ends a decoder which reads it in too many pieces, or works on it for too long.

    Pillow parses segments and chunks in Python, and reads each of them by itself: this counts whatever it parses.
    """

    def __init__(self, data: bytes) -> None:
        super().__init__(data)
        self._size = len(data)
        self._reads = 0
        self._header = True
        self._end = time.thread_time() + MAX_CPU_SECONDS

    def header_read(self) -> None:
        """Allow more from now on: what follows are the pixels."""
        self._header = False

    def read(self, size: int | None = -1, /) -> bytes:
        """Read up to `size` bytes.

        Raises:
            TooComplexError: a ceiling is passed.
        """
        self._reads += 1
        if self._reads > _HEADER_READS + (0 if self._header else self._size // _BYTES_A_READ):
            raise TooComplexError("the picture consists of too many segments or chunks: save it again without metadata")
        if self._header and self.tell() > MAX_HEADER_BYTES:
            raise _header_too_long()
        if time.thread_time() > self._end:
            raise TooComplexError(f"the picture takes over {MAX_CPU_SECONDS:g} s to decode: save it again as a JPEG")
        return super().read(size)


def check_scans(data: bytes, pixels: int, channels: int) -> None:
    """Refuse a JPEG with too many scans.

    Args:
        data: the whole file.
        pixels: width x height.
        channels: number of channels.

    Raises:
        TooComplexError: there are too many for this size.
    """
    weight = 1 if channels == 1 else 2
    most = min(MAX_SCANS, MAX_SCAN_PIXELS // max(weight * pixels, 1))
    # Counts at least the scans; a thumbnail, or a film after the picture, can have the same two bytes.
    if data.count(_SOS) <= most:
        return
    codes = list(islice(_markers(data), _MOST_MARKERS))
    if codes.count(_SOS[1]) > most or len(codes) == _MOST_MARKERS:
        raise TooComplexError(
            f"the JPEG has over {most} scans, the most for its size, or {_MOST_MARKERS:,} markers: save it again as "
            "baseline"
        )


def _markers(data: bytes) -> Iterator[int]:
    """Yield the second byte of each marker up to the end of the image; segments are skipped by their lengths."""
    start = 0
    while (marker := _MARKER.search(data, start)) and (code := marker[1][0]) != _EOI:
        yield code
        start = marker.end()
        # Only the markers of the start, of temporary use and of restarts have no length (ITU-T T.81, table B.1).
        if code not in (0x01, 0xD8):
            start += int.from_bytes(data[start : start + 2], "big")


def check_chunks(data: bytes) -> None:
    """Refuse a WebP with too many chunks.

    Raises:
        TooComplexError: there are more than `MAX_CHUNKS`.
    """
    position, count = 12, 0
    while position < len(data):
        length = int.from_bytes(data[position + 4 : position + 8], "little")
        position += 8 + length + length % 2
        count += 1
        if count > MAX_CHUNKS:
            raise TooComplexError(f"the WebP has over {MAX_CHUNKS:,} chunks: save it again without animation")


def check_scan_bytes(data: bytes, start: int, blocks: int, *, progressive: bool) -> None:
    """Refuse a JPEG with fewer bits than blocks, most of which libjpeg would fill with grey without an error.

    A Huffman code has at least one bit: a block has a code for its DC coefficient, and, if it is not progressive, one
    for the end of the others (ITU-T T.81, F.1.2 and G.1.2). Arithmetic codes have no such minimum.

    Args:
        data: the whole file.
        start: position after the head of the first scan.
        blocks: number of blocks of 8 x 8 samples in all components.
        progressive: True for a progressive file.

    Raises:
        BrokenImageError: most of the pixels are missing for certain.
    """
    if (len(data) - start) * 8 >= blocks * (1 if progressive else 2):
        return
    if _ARITHMETIC.isdisjoint(_markers(data[:start])):
        raise BrokenImageError(
            "the JPEG picture is damaged or incomplete (its header announces more pixels than its bytes can hold): "
            "use the whole file as it was saved"
        )


def _header_too_long() -> TooComplexError:
    return TooComplexError(
        f"the picture has over {MAX_HEADER_BYTES // 2**20} MiB of metadata before its pixels: save it again without"
    )
