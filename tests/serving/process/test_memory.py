"""Memory of a process after loading."""

import subprocess
import sys

# In a separate process: the allocator and the collector keep these settings.
SCRIPT = """
import gc
import psutil
from serving.process.memory import release_memory

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
