"""Limit of open files: what the connections need, what fits, and what to do about it."""

from __future__ import annotations

import resource

from models.common.errors import HalftoneError
from serving.telemetry.request_log import report

LEAST_CONNECTIONS = 16
"""Connections that must fit; with fewer the service does not start."""

_SPARE_FILES = 128
"""For everything but connections and other processes: 22 files in a worker with the default model, and what libraries
open meanwhile."""

_MOST_FILES = 2**31
"""Stands for no limit."""


def allow_open_files(connections: int, others: int = 0) -> int:
    """Raise this process's limit of open files to what it may need, and return how many connections fit.

    Args:
        connections: most that shall be open at once; as many again may be open to receive their refusal.
        others: processes to which this one holds a connection of its own.
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = min(_needed(connections, others), _most_files())
    if soft != resource.RLIM_INFINITY and soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
    return min(connections, max(1, _fitting(others)))


def check_open_files(connections: int, others: int = 0) -> None:
    """Print one line if the system allows fewer open files than the connections need; to be called once a service.

    Args:
        connections: as of `allow_open_files`.
        others: as there.

    Raises:
        HalftoneError: not even `LEAST_CONNECTIONS` fit.
    """
    most, needed = _most_files(), _needed(connections, others)
    if most >= needed:
        return
    fitting, least = _fitting(others), min(connections, LEAST_CONNECTIONS)
    if fitting < least:
        raise HalftoneError(
            f"a process may open only {most} files, and {least} connections need {_needed(least, others)}: allow "
            f"{needed} for HALFTONE_CONNECTIONS={connections} with `ulimit -n {needed}`"
        )
    report(
        "warning",
        f"a process may open only {most} files, so {fitting} connections may be open instead of "
        f"HALFTONE_CONNECTIONS={connections}: allow {needed} files with `ulimit -n {needed}`",
    )


def _most_files() -> int:
    """Return the most files to which this process can raise its own limit."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    return _MOST_FILES if hard == resource.RLIM_INFINITY else hard


def _needed(connections: int, others: int) -> int:
    return 2 * connections + others + _SPARE_FILES


def _fitting(others: int) -> int:
    return (_most_files() - others - _SPARE_FILES) // 2
