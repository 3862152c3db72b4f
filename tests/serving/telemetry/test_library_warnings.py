"""Warnings of libraries: what a picture causes is not logged, anything else in the log's format and once a place."""

import io
import json
import struct
import subprocess
import sys
import zlib
from pathlib import Path

import pytest
from PIL import Image

from tests.servers import QUICK, ROOT, serve, wait_until


def unusual_png(color: int) -> bytes:
    """A usable PNG that makes Pillow warn of an animation without frames."""
    file = io.BytesIO()
    Image.new("RGB", (8, 8), (color, 0, 0)).save(file, "PNG")
    body = b"acTL" + struct.pack(">II", 0, 0)
    chunk = struct.pack(">I", len(body) - 4) + body + struct.pack(">I", zlib.crc32(body))
    return file.getvalue()[:33] + chunk + file.getvalue()[33:]


def test_a_picture_makes_pillow_warn() -> None:
    with pytest.warns(UserWarning, match="Invalid APNG"):
        Image.open(io.BytesIO(unusual_png(1)))


@pytest.mark.parametrize("decoders", ["0", "1"])
def test_pictures_write_nothing_but_their_requests_to_the_log(artifacts: Path, tmp_path: Path, decoders: str) -> None:
    settings = {"HALFTONE_LOG_FORMAT": "json", "HALFTONE_DECODERS": decoders, **QUICK}
    with serve(artifacts, tmp_path / "log", **settings) as server:
        started = server.log.stat().st_size
        for color in range(3):
            assert server.post("/classify", content=unusual_png(color)).status_code == 200
        wait_until(lambda: server.log.read_text().count('"/classify"') == 3, "the requests were logged")

    lines = server.log.read_bytes()[started:].splitlines()
    assert all(json.loads(line)["event"] in ("request", "log") for line in lines)
    assert b"APNG" not in b"".join(lines)


SCRIPT = """
import logging, sys, warnings
from serving.telemetry.library_warnings import log_warnings
logging.basicConfig(stream=sys.stdout, format="%(levelname)s %(message)s")
log_warnings()
for number in range(100):
    warnings.warn(f"message {number}")
warnings.warn("another place", RuntimeWarning)
warnings.warn("not for users", DeprecationWarning, stacklevel=2)
warnings.warn_explicit("about a picture", UserWarning, "x", 1, module="PIL.TiffImagePlugin")
print(sorted(globals().get("__warningregistry__", {})))
"""


def test_others_are_logged_once_for_each_place() -> None:
    result = subprocess.run([sys.executable, "-c", SCRIPT], cwd=ROOT, capture_output=True, text=True, check=True)

    first, second, *rest = result.stdout.splitlines()
    assert first.endswith("UserWarning: message 0")
    assert second.endswith("RuntimeWarning: another place")
    # Nothing is remembered for each message.
    assert (rest, result.stderr) == (["['version']"], "")
