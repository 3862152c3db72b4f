"""Shared memory between this process and its loader processes, which a container may have too little of."""

from __future__ import annotations

import errno
import functools
import shutil
import sys
from pathlib import Path
from typing import Any

import torch

FOLDER = Path("/dev/shm")

_SIGNS = ("shared memory", "(shm)", "Bus error", "No space left on device")
"""What the messages of PyTorch and of the operating system say then, also through a loader process."""


def share_memory(*tensors: torch.Tensor) -> bool:
    """Move tensors to shared memory, in place; return False if there is too little of it."""
    try:
        for tensor in tensors:
            share: Any = tensor.share_memory_
            share()
    except (OSError, RuntimeError) as error:
        if not ran_out(error):
            raise
        return False
    return True


def ran_out(error: OSError | RuntimeError) -> bool:
    """Return True if the error says that there is too little shared memory."""
    number = error.errno if isinstance(error, OSError) else None
    return number in (errno.ENOSPC, errno.ENOMEM) or any(sign in str(error) for sign in _SIGNS)


@functools.cache
def warn() -> None:
    """Say once that loader processes are not used, and what to change."""
    size = f" of {shutil.disk_usage(FOLDER).total / 2**20:.3g} MB" if FOLDER.is_dir() else ""
    print(
        f"warning: the shared memory{size} ({FOLDER}) is too small for loader processes, so this process reads the "
        "pictures, which is slower: give a container more with `docker run --shm-size 8g`, or use fewer --workers",
        file=sys.stderr,
    )
