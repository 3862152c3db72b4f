"""Bound on the loader processes, for the commands that have `--workers`."""

from __future__ import annotations

from models.common.errors import HalftoneError

MOST = 256
"""As for the service: a number far beyond any machine's cores only hangs where processes are forked."""


def check_workers(workers: int | None) -> None:
    """Refuse a number of processes that no machine serves; None means the default.

    Raises:
        HalftoneError: it is negative or above `MOST`.
    """
    if workers is not None and not 0 <= workers <= MOST:
        raise HalftoneError(f"--workers must be from 0 to {MOST}, not {workers}")
