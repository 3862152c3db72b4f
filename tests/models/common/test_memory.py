"""Memory that a process has freed."""

import platform
import subprocess
import sys

import pytest

from tests.servers import ROOT

# In a separate process: the allocator and the collector keep these settings.
SCRIPT = """
import gc
import psutil
from models.common.memory import release_memory

blocks = [bytes(30_000) for _ in range(2_000)]
# The last block stays, so that the heap can't shrink without `malloc_trim`.
del blocks[:-1]
before = psutil.Process().memory_info().rss
release_memory()
print(before - psutil.Process().memory_info().rss, gc.get_freeze_count())
"""


def test_free_memory_is_given_back() -> None:
    result = subprocess.run([sys.executable, "-c", SCRIPT], capture_output=True, text=True, check=True)
    released, frozen = map(int, result.stdout.split())

    assert released > 30_000_000 or sys.platform != "linux"
    assert frozen > 0


COMMAND = """
import ctypes
import multiprocessing
import numpy
import psutil
from models.common.memory import freed_memory_kept
from training.data.batches.loader import _become_a_loader

MB = 2**20
sbrk = ctypes.CDLL(None).sbrk
sbrk.restype = ctypes.c_void_p

def grown():
    before, blocks = sbrk(0), [numpy.empty(100 * MB, numpy.uint8) for _ in range(25)]
    del blocks
    return (sbrk(0) - before) // MB

def loader():
    before = psutil.Process().memory_info().rss
    _become_a_loader(0)
    numpy.ones(100 * MB, numpy.uint8)
    print((psutil.Process().memory_info().rss - before) // MB, flush=True)

print(grown())
with freed_memory_kept():
    print(grown(), flush=True)
    child = multiprocessing.get_context("fork").Process(target=loader)
    child.start()
    child.join()
    before = sbrk(0)
print((sbrk(0) - before) // MB)
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="only glibc has the calls")
def test_free_memory_is_kept_meanwhile_but_not_by_a_loader() -> None:
    told = subprocess.run([sys.executable, "-c", COMMAND], cwd=ROOT, capture_output=True, text=True, check=True)

    without, kept, loader, given_back = map(int, told.stdout.split())
    # More than the 2 GiB beyond which glibc gives back unless trimming is off.
    assert (without < 200, kept > 2100, loader < 20, given_back < -2100) == (True, True, True, True), told.stdout
