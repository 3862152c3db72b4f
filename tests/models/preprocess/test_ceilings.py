"""Files that are built to occupy a decoder are refused, and ordinary ones with large metadata are not."""

import os
import re
import struct
import subprocess
import sys
from collections.abc import Callable

import numpy as np
import pytest
from PIL import Image

from loadtest.malformed.bombs import (
    PICTURES,
    Limits,
    exif,
    jpeg,
    png,
    webp,
    with_chunks,
    with_scans,
    with_segments,
    with_size,
)
from models.preprocess import ceilings
from models.preprocess.decode import decode
from models.preprocess.errors import BrokenImageError, ImageError, TooComplexError, TooManyPixelsError
from tests.samples import encoded, noise, png_chunk

SMALL = Limits(size=2**20, pixels=2**20)
PHOTO = Image.fromarray(noise(64, 64))


def outcome_of(file: bytes, plain: bool) -> str:
    try:
        decode(file, plain=plain)
    except ImageError as error:
        return str(error)
    return "pixels"


@pytest.mark.parametrize("kind", PICTURES)
@pytest.mark.parametrize("plain", [False, True])
def test_every_kind_of_bomb_is_decoded_or_refused(kind: str, plain: bool) -> None:
    outcome = outcome_of(PICTURES[kind](SMALL), plain)

    assert outcome == "pixels" or re.search(r"use (a|the)|save it again", outcome)


@pytest.mark.parametrize(
    "make",
    [
        lambda: with_segments(jpeg(64, 64), 0xE4, b"", 2**16),
        lambda: with_segments(jpeg(64, 64), 0xFE, b"", 2**16),
        lambda: with_segments(jpeg(64, 64), 0xE1, b"Exif\0\0" + bytes(65_000), 2**23 + 2**18),
        lambda: b"\xff\xd8" + b"\xff" * 2**12 + jpeg(64, 64)[2:],
        lambda: png(64, 64, extra=png_chunk(b"prVt", b"") * 1_000),
        lambda: png(64, 64, extra=png_chunk(b"IDAT", b"") * 10_000),
        lambda: with_chunks(webp(64, 64, exif=b"Exif\0\0"), ceilings.MAX_CHUNKS),
        lambda: with_scans(jpeg(64, 64, progressive=True), ceilings.MAX_SCANS + 1),
        lambda: with_scans(jpeg(7_000, 7_000, "L", progressive=True), 13),
        lambda: with_scans(jpeg(4_000, 4_000, "RGB", progressive=True), 19),
    ],
    ids=[
        "APP4",
        "comments",
        "megabytes of EXIF",
        "padding",
        "PNG",
        "IDAT",
        "WebP",
        "scans",
        "of many pixels",
        "in colour",
    ],
)
def test_too_many_parts_are_refused_with_the_remedy(make: Callable[[], bytes]) -> None:
    file = make()

    with pytest.raises(TooComplexError, match="save it again"):
        decode(file)


@pytest.mark.parametrize("kind", ["scans: behind comments", "scans: behind padding"])
def test_scans_are_counted_wherever_they_are(kind: str) -> None:
    with pytest.raises(TooComplexError, match="scans, the most for its size, or 10,000 markers: save it again"):
        decode(PICTURES[kind](SMALL))


def test_as_many_scans_as_are_allowed_change_nothing() -> None:
    file = jpeg(64, 64, progressive=True)

    np.testing.assert_array_equal(decode(with_scans(file, ceilings.MAX_SCANS)), decode(file))


def test_scans_of_a_thumbnail_or_behind_the_picture_do_not_count() -> None:
    file = encoded(PHOTO, "JPEG")
    start_of_scan = b"\xff\xda\0\2" * (ceilings.MAX_SCANS + 1)

    np.testing.assert_array_equal(decode(with_segments(file, 0xE1, start_of_scan, 2**16)), decode(file))
    np.testing.assert_array_equal(decode(file + start_of_scan), decode(file))


@pytest.mark.parametrize("code", [0xE1, 0xE2, 0xED, 0xFE])
def test_a_photograph_may_have_megabytes_of_metadata(code: int) -> None:
    file = encoded(PHOTO, "JPEG")

    np.testing.assert_array_equal(decode(with_segments(file, code, bytes(65_000), 2**22)), decode(file))


@pytest.mark.parametrize("width_and_height", [(1, 65_536), (65_536, 1)])
def test_no_side_is_longer_than_a_jpeg_may_have(width_and_height: tuple[int, int]) -> None:
    with pytest.raises(TooManyPixelsError, match="a side may have 65,535"):
        decode(png(*width_and_height, colour=0))


@pytest.mark.parametrize("width_and_height", [(1, 65_535), (65_535, 1)])
def test_a_picture_may_be_a_line(width_and_height: tuple[int, int]) -> None:
    assert decode(png(*width_and_height, colour=0)).shape == (*width_and_height[::-1], 3)


@pytest.mark.parametrize(
    ("file", "limit"),
    [
        (webp(100, 100), "6,250 for a WebP"),
        (jpeg(104, 104, "CMYK", progressive=True), "8,333 for a progressive JPEG of 4 channels"),
    ],
)
def test_formats_that_take_more_memory_may_have_fewer_pixels(file: bytes, limit: str) -> None:
    with pytest.raises(TooManyPixelsError, match=limit):
        decode(file, max_pixels=10_000)
    assert decode(file, max_pixels=20_000).shape[2] == 3


@pytest.mark.parametrize("progressive", [False, True])
@pytest.mark.parametrize("mode", ["L", "RGB", "CMYK"])
def test_a_header_over_the_data_of_a_smaller_picture_is_broken(mode: str, progressive: bool) -> None:
    file = encoded(Image.fromarray(noise(32, 24)).convert(mode), "JPEG", progressive=progressive)
    file = file.replace(b"\xff\xc2", b"\xff\xc0")
    file = with_size(file, 4_000, 4_000)

    with pytest.raises(BrokenImageError, match=r"more pixels than its bytes can hold.*use the whole file"):
        decode(file.replace(b"\xff\xc0", b"\xff\xc2") if progressive else file)


@pytest.mark.parametrize("options", [{"optimize": True}, {"progressive": True}, {"quality": 1}, {"subsampling": 0}])
@pytest.mark.parametrize("mode", ["L", "RGB", "CMYK"])
@pytest.mark.parametrize("side", [1, 7, 1_000])
def test_a_page_of_one_colour_is_whole_however_small_its_file(mode: str, side: int, options: dict[str, int]) -> None:
    assert decode(jpeg(side, side, mode, **options)).shape == (side, side, 3)


@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize(("kind", "code"), [(3, "H2x"), (4, "I"), (8, "h2x"), (9, "i")])
@pytest.mark.parametrize("place", [0, 1, 700])
def test_the_orientation_is_found_wherever_it_stands(order: str, kind: int, code: str, place: int) -> None:
    others = [struct.pack(order + "HHI", 0x9000 + number, 4, 1) + bytes(4) for number in range(701)]
    others[place] = struct.pack(order + "HHI", 0x0112, kind, 1) + struct.pack(order + code, 6)
    head = {"<": b"II*\0", ">": b"MM\0*"}[order] + struct.pack(order + "IH", 8, len(others))
    file = encoded(Image.fromarray(noise(8, 24)), "PNG", exif=b"Exif\0\0" + head + b"".join(others))

    assert decode(file).shape == (24, 8, 3)


def test_of_exif_only_the_orientation_is_read(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*arguments: object) -> None:
        raise AssertionError("Pillow reads every entry")

    monkeypatch.setattr("PIL.TiffImagePlugin.ImageFileDirectory_v2.load", fail)
    file = with_segments(encoded(PHOTO, "JPEG"), 0xE1, b"Exif\0\0" + exif(5_000, 65_000), 2**17)

    np.testing.assert_array_equal(decode(file), decode(encoded(PHOTO, "JPEG")))


@pytest.mark.parametrize(
    "error", [OSError(24, "Too many open files"), MemoryError(), ImportError("PIL.TiffImagePlugin")], ids=repr
)
def test_what_the_process_lacks_is_not_the_fault_of_the_picture(
    monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    def fail(image: Image.Image) -> int:
        raise error

    monkeypatch.setattr("models.preprocess.decode.orientation", fail)

    with pytest.raises(type(error)) as caught:
        decode(encoded(PHOTO, "PNG"))
    assert caught.value is error


def test_a_picture_that_takes_too_long_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ceilings, "MAX_CPU_SECONDS", 0.0)

    for kind in ("JPEG", "PNG", "WebP"):
        with pytest.raises(TooComplexError, match="takes over 0 s to decode: save it again as a JPEG"):
            decode(encoded(PHOTO, kind))


WITH_LITTLE_MEMORY = """
import resource, sys
from models.preprocess.decode import decode

data = sys.stdin.buffer.read()
decode(data)
used = int(open("/proc/self/statm").read().split()[0]) * resource.getpagesize()
resource.setrlimit(resource.RLIMIT_AS, (used + 2**24, resource.RLIM_INFINITY))
try:
    decode(data)
except BaseException as error:
    print(type(error).__name__)
"""


@pytest.mark.parametrize(
    "file",
    [
        webp(3_000, 3_000),
        jpeg(3_000, 3_000),
        jpeg(3_000, 3_000, "CMYK", progressive=True),
        png(3_000, 3_000),
        png(3_000, 3_000, colour=6, bits=16),
    ],
    ids=["WebP", "JPEG", "progressive", "PNG", "RGBA"],
)
def test_without_memory_no_picture_is_called_damaged(file: bytes) -> None:
    environment = os.environ | {"MALLOC_TRIM_THRESHOLD_": "65536", "MALLOC_MMAP_THRESHOLD_": "65536"}
    command = [sys.executable, "-c", WITH_LITTLE_MEMORY]
    result = subprocess.run(command, input=file, env=environment, capture_output=True, check=True)

    assert result.stdout.decode().strip() == "MemoryError"
