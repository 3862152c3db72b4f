"""Freed memory of a training process on a CPU: kept for the next step instead of being given back to the system.

glibc maps every large tensor anew and unmaps it when it is freed (mallopt(3), M_MMAP_THRESHOLD), and the system clears
each page of it, step after step. docs/training.md has what that costs.
"""

from __future__ import annotations

import contextlib
import ctypes
import sys
from collections.abc import Iterator, Mapping

_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD, _M_MMAP_MAX = -1, -3, -4
_MAPPED = 65_536
"""glibc's default of M_MMAP_MAX."""

_LARGE, _KEPT = 32 * 2**20, 64 * 2**20
"""Thresholds that glibc comes to by itself once a program has freed something large, unless one was set."""

_ALL = 2**31 - 1


@contextlib.contextmanager
def freed_memory_kept() -> Iterator[None]:
    """Keep freed memory in this process meanwhile, and give it back at the end; with other C libraries do nothing."""
    _set({_M_MMAP_MAX: 0, _M_TRIM_THRESHOLD: _ALL})
    try:
        yield
    finally:
        give_back_freed_memory()


def give_back_freed_memory() -> None:
    """Give freed memory back to the system from now on, as a process forked from a training one should."""
    libc = _set({_M_MMAP_MAX: _MAPPED, _M_MMAP_THRESHOLD: _LARGE, _M_TRIM_THRESHOLD: _KEPT})
    if libc:
        libc.malloc_trim(0)


def _set(values: Mapping[int, int]) -> ctypes.CDLL | None:
    """Set what glibc has, and return it."""
    if sys.platform != "linux" or not hasattr(libc := ctypes.CDLL(None), "mallopt"):
        return None
    for name, value in values.items():
        libc.mallopt(name, value)
    return libc
