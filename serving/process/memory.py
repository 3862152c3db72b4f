"""Return memory that loading and freeing models left unused to the operating system."""

from __future__ import annotations

import ctypes
import gc
import sys

_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3
_LARGE = 4 * 2**20
_KEPT = 16 * 2**20


def release_memory() -> None:
    """Collect garbage and release unused memory; to be called once, when everything is loaded.

    The objects that remain are excluded from later collections, so that no request waits for them. Then glibc returns
    the pages that reading and compiling the models used and freed (17 MB of 168 with the default model; about a
    millisecond). Other C libraries have no such call and keep them.

    From then on glibc returns a block of 4 MiB or more as soon as it is free. Without this limit it would come to keep
    64 MiB for each thread that ever decoded a large image; the images that most clients send are smaller.
    """
    gc.collect()
    gc.freeze()
    _trim_heap()
    if sys.platform == "linux" and hasattr(libc := ctypes.CDLL(None), "mallopt"):
        libc.mallopt(_M_MMAP_THRESHOLD, _LARGE)
        libc.mallopt(_M_TRIM_THRESHOLD, _KEPT)


def trim() -> None:
    """Collect garbage and release unused memory; to be called when a model was freed while others serve.

    Unlike `release_memory`, exclude nothing from later collections.
    """
    gc.collect()
    _trim_heap()


def _trim_heap() -> None:
    if sys.platform == "linux" and hasattr(libc := ctypes.CDLL(None), "malloc_trim"):
        libc.malloc_trim(0)
