"""One server of the comparison: its description, how to start it, and its process while it serves."""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from loadtest.client.blocking import fetch
from loadtest.client.encoding import Wire, request
from loadtest.client.load import class_index
from loadtest.reporting.cli import PeerError
from loadtest.reporting.host import usable_cores
from loadtest.servers.halftone import wait_for_workers
from loadtest.servers.process import (
    ROOT,
    NotReadyError,
    cpu_seconds,
    free_port,
    peak_mib,
    server_process,
    share_mib,
)

INDEX = r'"index"\s*:\s*(\d+)'
"""Finds the first class index in a response such as `{"predictions": [{"index": 281, …}, …]}`."""

V2_INDEX = r'"data"\s*:\s*\[\s*(\d+)'
"""Finds the first element of the first tensor in a response of the Open Inference Protocol."""

V2_CLASS = r'"data"\s*:\s*\[\s*"[^":]*:(\d+)'
"""Finds the first class index of a tensor that is returned as a classification: `"SCORE:INDEX:LABEL"`."""

_DEFAULT_MODEL = "efficientnet_lite0"
_REQUEST_SECONDS = 10


@dataclass(frozen=True, kw_only=True)
class Peer:
    """One row of the comparison.

    In `command` and `settings`, `{python}` and `{bin}` stand for the peer's interpreter and its folder, `{port}` for a
    free port, `{cores}` for the number of usable cores and `{variant}` for the variant that our service chose.
    """

    name: str
    """Name for --peers."""

    title: str
    """Name in the table."""

    command: tuple[str, ...]
    """Started in the repository's root."""

    engine: str
    """Engine that executes the model."""

    requirements: str = ""
    """Name of the file in loadtest/peers/requirements with its packages; empty: it runs in this environment."""

    python: str = ""
    """Interpreter to make that environment with; empty: the running one."""

    path: str = "/classify"
    """Path of a request; `{model}` stands for the first model that our service serves."""

    named: bool = False
    """True if it is measured only if --peers names it."""

    wire: Wire = Wire.RAW
    answer: str = INDEX
    """See `Load.answer`."""

    settings: Mapping[str, str] = field(default_factory=dict)
    """Environment variables."""

    ours: bool = False
    """True for our service: if it fails, the command fails."""

    loop: bool = False
    """True if there is no HTTP: the command measures itself and prints the result (loadtest.peers.limit)."""

    @property
    def target(self) -> str:
        """Path of a request, with the name of the model that is set now."""
        model = (os.environ.get("HALFTONE_MODEL") or _DEFAULT_MODEL).split(",")[0]
        return self.path.replace("{model}", model)


@dataclass(frozen=True, kw_only=True)
class Running:
    """A peer that serves."""

    peer: Peer
    port: int
    pid: int
    cold_start: float
    """Seconds from its start to its first response with a class."""

    def peak_mib(self) -> float:
        """Return the peak resident memory of it and its children in MiB, each process's own peak added up."""
        return peak_mib(self.pid)

    def share_mib(self) -> float | None:
        """Return its and its children's proportional set size in MiB; None where the system doesn't tell."""
        return share_mib(self.pid)

    def cpu_seconds(self) -> float:
        """Return the processor time in seconds that it and its children have used so far."""
        return cpu_seconds(self.pid)

    def classify(self, picture: bytes) -> bytes:
        """Return the body of the response to one picture.

        Raises:
            PeerError: there is none with status 200.
        """
        try:
            response = fetch(self.port, request(self.peer.wire, self.peer.target, picture, self.port))
        except OSError as error:
            raise PeerError(f"no response: {error}") from None
        if response.status != 200:
            raise PeerError(f"status {response.status}: {response.body[:200].decode(errors='replace')}")
        return response.body


@contextlib.contextmanager
def running(peer: Peer, python: Path, picture: bytes, variant: str) -> Iterator[Running]:
    """Start the peer's server and wait until it serves; stop it at the end.

    Args:
        peer: the server.
        python: interpreter of its environment.
        picture: sent until the response has a class.
        variant: replaces `{variant}`.

    Raises:
        PeerError: it ended, or it or not all of its workers served in time; the message quotes the end of its log.
    """
    port = free_port()
    command, environment = expand(peer, python, port, variant)
    message = request(peer.wire, peer.target, picture, port)
    start = time.perf_counter()
    with server_process(command, environment, port, folder=ROOT) as server:
        server.wait_until(lambda: _check_class(peer, message, port))
        cold_start = time.perf_counter() - start
        if peer.ours:
            wait_for_workers(server, environment)
        yield Running(peer=peer, port=port, pid=server.process.pid, cold_start=cold_start)


def expand(peer: Peer, python: Path, port: int, variant: str) -> tuple[list[str], dict[str, str]]:
    """Return the command, and the whole environment to start it with."""
    values = {
        "python": str(python),
        "bin": str(python.parent),
        "port": str(port),
        "cores": str(usable_cores()),
        "variant": variant,
    }
    settings = {name: value.format(**values) for name, value in peer.settings.items()}
    return [part.format(**values) for part in peer.command], _environment(settings)


def _environment(settings: Mapping[str, str]) -> dict[str, str]:
    # A program of another interpreter must not find this one's packages or environment.
    inherited = {name: value for name, value in os.environ.items() if name not in {"PYTHONHOME", "VIRTUAL_ENV"}}
    fixed = {"PYTHONPATH": str(ROOT), "BENTOML_DO_NOT_TRACK": "True", "PYTHONUNBUFFERED": "1"}
    environment = {**inherited, **fixed, **settings}
    # The server starts in another folder than this command.
    for variable, default in (("HALFTONE_ARTIFACTS", "artifacts"), ("HALFTONE_SETTINGS", "")):
        if path := environment.get(variable) or default:
            environment[variable] = str(Path(path).absolute())
    return environment


def _check_class(peer: Peer, message: bytes, port: int) -> None:
    """Raise NotReadyError unless the response to this request has a class."""
    try:
        response = fetch(port, message, timeout=_REQUEST_SECONDS)
    except OSError as error:
        raise NotReadyError(str(error)) from None
    if response.status != 200 or class_index(peer.answer, response.body) is None:
        raise NotReadyError(f"{response.status} {response.body[:200].decode(errors='replace')}")
