"""What loading and freeing models leaves behind: memory that is free, but still counted as the process's own."""

from __future__ import annotations

import ctypes
import gc
import sys

_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3
_LARGE = 4 * 2**20
_KEPT = 16 * 2**20


def settle() -> None:
    """To be called once when everything is loaded, before the first request.

    Garbage is collected, and what remains is never looked at again by the collector: no request waits for it. Then
    glibc gives the pages back that reading and compiling the models used and freed (17 MB of 168 with the default
    model; about a millisecond). Other C libraries have no such call and keep theirs.

    From then on a block of 4 MiB or more is the system's again as soon as it is free. By itself glibc would come to
    keep 64 MiB for each thread that ever decoded a large picture; the pictures that most clients send stay below.
    """
    gc.collect()
    gc.freeze()
    _give_back()
    if sys.platform == "linux" and hasattr(libc := ctypes.CDLL(None), "mallopt"):
        libc.mallopt(_M_MMAP_THRESHOLD, _LARGE)
        libc.mallopt(_M_TRIM_THRESHOLD, _KEPT)


def trim() -> None:
    """To be called when a model was freed while others serve: as `settle`, but nothing new is kept for ever."""
    gc.collect()
    _give_back()


def _give_back() -> None:
    if sys.platform == "linux" and hasattr(libc := ctypes.CDLL(None), "malloc_trim"):
        libc.malloc_trim(0)
