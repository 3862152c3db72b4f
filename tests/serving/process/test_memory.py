"""Memory of the process after loading."""

import gc
import sys

import psutil

from serving.process.memory import release_memory


def test_free_memory_is_given_back() -> None:
    blocks = [bytes(30_000) for _ in range(2_000)]
    # The last block stays, so that the heap can't shrink without `malloc_trim`.
    del blocks[:-1]
    before = psutil.Process().memory_info().rss

    release_memory()

    try:
        released = before - psutil.Process().memory_info().rss
        assert released > 30_000_000 or sys.platform != "linux"
        assert gc.get_freeze_count() > 0
    finally:
        gc.unfreeze()
