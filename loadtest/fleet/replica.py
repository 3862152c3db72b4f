"""A replica of the service on this machine: it is started, stopped, killed, and given other versions."""

from __future__ import annotations

import contextlib
import os
import signal
import time
from collections.abc import Iterator

import psutil

from loadtest.servers.bundles import Bundle
from loadtest.servers.halftone import Server, started
from loadtest.servers.operator import Operator
from loadtest.servers.process import process_tree

STOP_SECONDS = 60
HELD_SECONDS = 0.1
"""Time for which a replica is held before it is killed, so that requests are in flight."""


class Replica:
    """A started replica, whose address is new with every start.

    Args:
        server: the process.
        operator: loads versions into it.
    """

    def __init__(self, server: Server, operator: Operator) -> None:
        self.operator = operator
        self.address = f"127.0.0.1:{server.port}"
        self._server = server

    def stop(self) -> None:
        """Send SIGTERM and wait for the end.

        Raises:
            subprocess.TimeoutExpired: it doesn't end.
        """
        self._server.process.send_signal(signal.SIGTERM)
        self._server.process.wait(timeout=STOP_SECONDS)

    def kill(self) -> None:
        """Kill all its processes while they have requests in flight."""
        family = process_tree(self._server.process.pid)
        _signal(family, signal.SIGSTOP)
        time.sleep(HELD_SECONDS)
        _signal(family, signal.SIGKILL)
        self._server.process.wait(timeout=STOP_SECONDS)


@contextlib.contextmanager
def replica(bundle: Bundle, token: str, picture: bytes, **settings: str) -> Iterator[Replica]:
    """Start a replica that serves the version in the bundle's folder, ready when the block begins.

    Args:
        bundle: in a folder of the replica's own.
        token: the admin token.
        picture: to classify as the first request.
        settings: more variables for it.

    Raises:
        RefusedError: the replica refuses the picture.
    """
    folder, model = str(bundle.folder.parent), bundle.folder.name
    variables = {"HALFTONE_ARTIFACTS": folder, "HALFTONE_MODEL": model, "HALFTONE_ADMIN_TOKEN": token} | settings
    with started(**variables) as server:
        operator = Operator(server, token, bundle)
        operator.record_first(server.first_answer(picture)["version"])
        yield Replica(server, operator)


def _signal(processes: list[psutil.Process], number: int) -> None:
    for process in processes:
        with contextlib.suppress(ProcessLookupError):
            os.kill(process.pid, number)
