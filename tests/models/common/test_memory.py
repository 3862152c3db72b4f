"""Memory that a process has freed."""

import subprocess
import sys

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
import multiprocessing
import numpy
import psutil
from models.common.memory import freed_memory_kept, give_back_freed_memory

MB = 2**20

def grown(do=lambda: None):
    before = psutil.Process().memory_info().rss
    numpy.ones(200 * MB, numpy.uint8)
    do()
    return (psutil.Process().memory_info().rss - before) // MB

def loader():
    give_back_freed_memory()
    print(grown(), flush=True)

print(grown())
with freed_memory_kept():
    print(grown(), flush=True)
    child = multiprocessing.get_context("fork").Process(target=loader)
    child.start()
    child.join()
print(grown())
"""


def test_free_memory_is_kept_meanwhile_but_not_by_a_loader() -> None:
    told = subprocess.run([sys.executable, "-c", COMMAND], cwd=ROOT, capture_output=True, text=True, check=True)

    before, meanwhile, loader, after = map(int, told.stdout.split())
    assert (before < 20, meanwhile > 180, loader < 20, after < 20) == (True, True, True, True)
