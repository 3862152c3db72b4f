"""Memory that a process has freed: given back to the operating system, or kept for the next step.

Only glibc has the calls for it; with another C library nothing is done.
"""

from __future__ import annotations

import contextlib
import ctypes
import gc
import sys
from collections.abc import Iterator, Mapping

_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD, _M_MMAP_MAX = -1, -3, -4
_MIB = 2**20

_KEEPING = {_M_MMAP_MAX: 0, _M_TRIM_THRESHOLD: -1}

_GIVING_BACK = {_M_MMAP_MAX: 65_536, _M_MMAP_THRESHOLD: 32 * _MIB, _M_TRIM_THRESHOLD: 64 * _MIB}
"""The thresholds are the highest that glibc comes to by itself when a program frees large blocks."""


def release_memory() -> None:
    """Collect garbage and release unused memory; to be called once, when everything is loaded.

    The objects that remain are excluded from later collections, so that no request waits for them. Then glibc returns
    the pages that reading and compiling the models used and freed (17 MB of 168 with the default model; about a
    millisecond).

    From then on glibc returns a block of 4 MiB or more as soon as it is free. Without this limit it would come to keep
    64 MiB for each thread that ever decoded a large image; the images that most clients send are smaller.
    """
    gc.collect()
    gc.freeze()
    _trim_heap()
    _set({_M_MMAP_THRESHOLD: 4 * _MIB, _M_TRIM_THRESHOLD: 16 * _MIB})


def trim() -> None:
    """Collect garbage and release unused memory; to be called when a model was freed while others serve.

    Unlike `release_memory`, exclude nothing from later collections.
    """
    gc.collect()
    _trim_heap()


@contextlib.contextmanager
def freed_memory_kept() -> Iterator[None]:
    """Keep what the main thread frees meanwhile, and give it back at the end: for work that repeats the same steps.

    Without it every large tensor is new memory (mallopt(3), M_MMAP_THRESHOLD), whose pages the system clears:
    docs/training.md has what that costs. Other threads have heaps of their own, whose large blocks are new all the
    same. Not to be nested; the environment's `MALLOC_…` variables don't count any more.
    """
    _set(_KEEPING)
    try:
        yield
    finally:
        give_back_freed_memory()


def give_back_freed_memory() -> None:
    """End `freed_memory_kept` in this process, as one that was forked meanwhile may want to."""
    _set(_GIVING_BACK)
    _trim_heap()


def _set(values: Mapping[int, int]) -> None:
    if sys.platform == "linux" and hasattr(libc := ctypes.CDLL(None), "mallopt"):
        for name, value in values.items():
            libc.mallopt(name, value)


def _trim_heap() -> None:
    if sys.platform == "linux" and hasattr(libc := ctypes.CDLL(None), "malloc_trim"):
        libc.malloc_trim(0)
