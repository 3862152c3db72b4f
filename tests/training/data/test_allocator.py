"""Freed memory of a training process: kept for its next step, and given back at the end and in its loaders."""

import subprocess
import sys

from tests.servers import ROOT

PROGRAM = """
import multiprocessing
import numpy
import psutil
from training.data.batches.allocator import freed_memory_kept, give_back_freed_memory

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


def test_it_is_kept_while_a_network_is_trained_and_not_by_a_loader() -> None:
    told = subprocess.run([sys.executable, "-c", PROGRAM], cwd=ROOT, capture_output=True, text=True, check=True)

    before, meanwhile, loader, after = map(int, told.stdout.split())
    assert (before < 20, meanwhile > 180, loader < 20, after < 20) == (True, True, True, True)
