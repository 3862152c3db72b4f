"""Interleaved rounds: every peer is started, warmed, measured and stopped in turn, and then all of them again.

A machine's speed drifts within minutes, so only figures of one round are divided by each other; every second round
goes through the peers in the opposite order. Servers that differ by less than that drift can take turns within
seconds: all are started first, and each number of clients then goes round.
"""

from __future__ import annotations

import contextlib
import json
import subprocess
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from loadtest.client.encoding import request
from loadtest.client.load import Cell, Load, percentile
from loadtest.reporting.cli import CompareError, PeerError
from loadtest.servers.peer import Peer
from loadtest.servers.process import ROOT, Running, expand, running, usable_cores

Generator = Callable[[Load], Cell]

_WARM_UP_CLIENTS = 8
_LOOP_GRACE_SECONDS = 90


@dataclass(frozen=True, kw_only=True)
class Plan:
    """What one run does.

    Raises:
        CompareError: no picture has a right answer.
    """

    peers: Sequence[Peer]
    pictures: Mapping[str, bytes]
    labels: Mapping[str, int]
    """Right class index of each picture."""

    clients: Sequence[int]
    seconds: float
    rounds: int
    variant: str
    """What `{variant}` stands for."""

    generate: Generator
    interpreter: Callable[[Peer], Path]
    """Finds a peer's Python; raises PeerError."""

    say: Callable[[str], None]
    together: bool = False
    """Let all servers run during all rounds, so that their turns come close after each other; for those that cost
    nothing while they wait."""

    def __post_init__(self) -> None:
        if not self.decided:
            raise CompareError(
                f"no decided picture: of {len(self.pictures)} pictures none has a right answer, as their two best "
                "classes are nearly as probable: name other photos with --images, or right answers with --labels"
            )

    @property
    def decided(self) -> list[str]:
        """The pictures that have a right answer: those that are sent, in this order."""
        return [name for name in self.pictures if name in self.labels]


@dataclass
class Result:
    """What was measured of one peer."""

    peer: Peer
    cells: list[dict[int, Cell]] = field(default_factory=list)
    """A round each: number of clients to figures. A loop without HTTP has one cell for every number."""

    cold_starts: list[float] = field(default_factory=list)
    peaks_mib: list[float] = field(default_factory=list)
    reason: str = ""
    """Why there are no figures, or not all."""


def measure(plan: Plan) -> list[Result]:
    """All rounds; a peer that fails keeps its place with the reason and is left out of the later rounds."""
    results = [Result(peer) for peer in plan.peers]
    if plan.together:
        with contextlib.ExitStack() as stack:
            servers = _start_all(plan, [result for result in results if not result.peer.loop], stack)
            _take_turns(plan, servers, [result for result in results if result.peer.loop])
        return results
    for number in range(plan.rounds):
        for result in results if number % 2 == 0 else reversed(results):
            if result.reason:
                continue
            plan.say(f"round {number + 1} of {plan.rounds}: {result.peer.name}")
            try:
                (_loop if result.peer.loop else _serve)(plan, result)
            except PeerError as error:
                result.reason = str(error)
                plan.say(f"{result.peer.name}: {error}")
    return results


def _start_all(plan: Plan, results: Sequence[Result], stack: contextlib.ExitStack) -> list[tuple[Result, Running]]:
    """Those that answer, warmed up; they run until the stack is left."""
    servers = []
    first = next(iter(plan.pictures.values()))
    for result in results:
        plan.say(f"starting {result.peer.name}")
        try:
            server = stack.enter_context(running(result.peer, plan.interpreter(result.peer), first, plan.variant))
            _warm_up(plan, server)
        except PeerError as error:
            result.reason = str(error)
            plan.say(f"{result.peer.name}: {error}")
        else:
            result.cold_starts.append(server.cold_start)
            servers.append((result, server))
    return servers


def _take_turns(plan: Plan, servers: list[tuple[Result, Running]], loops: list[Result]) -> None:
    for number in range(plan.rounds):
        plan.say(f"round {number + 1} of {plan.rounds}")
        for result, _ in servers:
            result.cells.append({})
        for clients in plan.clients:
            for result, server in servers if number % 2 == 0 else reversed(servers):
                result.cells[-1][clients] = plan.generate(load_of(plan, server, clients, plan.seconds))
        for result in loops:
            _loop(plan, result)
    for result, server in servers:
        result.peaks_mib.append(server.peak_mib())


def _serve(plan: Plan, result: Result) -> None:
    first = next(iter(plan.pictures.values()))
    with running(result.peer, plan.interpreter(result.peer), first, plan.variant) as server:
        _warm_up(plan, server)
        cells = {clients: plan.generate(load_of(plan, server, clients, plan.seconds)) for clients in plan.clients}
        result.cells.append(cells)
        result.cold_starts.append(server.cold_start)
        result.peaks_mib.append(server.peak_mib())


def _warm_up(plan: Plan, server: Running) -> None:
    plan.generate(load_of(plan, server, min(_WARM_UP_CLIENTS, max(plan.clients)), max(1.0, plan.seconds / 2)))


def load_of(plan: Plan, server: Running, clients: int, seconds: float) -> Load:
    """The pictures that have a right answer, in the form that the server takes."""
    names = plan.decided
    peer = server.peer
    return Load(
        port=server.port,
        requests=[request(peer.wire, peer.target, plan.pictures[name], server.port) for name in names],
        expected=[plan.labels[name] for name in names],
        answer=peer.answer,
        clients=clients,
        seconds=seconds,
    )


def _loop(plan: Plan, result: Result) -> None:
    command, environment = expand(result.peer, plan.interpreter(result.peer), 0, plan.variant)
    with tempfile.TemporaryDirectory() as folder:
        for name in plan.decided:
            (Path(folder) / name).write_bytes(plan.pictures[name])
        command += ["--pictures", folder, "--seconds", str(plan.seconds)]
        try:
            done = subprocess.run(
                command,
                cwd=ROOT,
                env=environment,
                capture_output=True,
                text=True,
                check=False,
                timeout=plan.seconds + _LOOP_GRACE_SECONDS,
            )
        except subprocess.TimeoutExpired:
            raise PeerError(f"not done within {plan.seconds + _LOOP_GRACE_SECONDS:g} s") from None
    if done.returncode != 0:
        raise PeerError(f"ended with {done.returncode}; it said: {' '.join(done.stderr.split())[-300:]}")
    cell = _loop_cell(json.loads(done.stdout.splitlines()[-1]), plan)
    result.cells.append(dict.fromkeys(plan.clients, cell))


def _loop_cell(figures: Mapping[str, Any], plan: Plan) -> Cell:
    positions = {name: position for position, name in enumerate(plan.decided)}
    missed = [name for name, index in figures["answers"] if plan.labels[name] != index]
    return Cell(
        clients=usable_cores(),
        seconds=figures["seconds"],
        requests=len(figures["answers"]),
        errors=0,
        wrong=len(missed),
        p50_ms=1000 * percentile(figures["runs"], 50),
        p99_ms=1000 * percentile(figures["runs"], 99),
        seen=frozenset(positions[name] for name, _ in figures["answers"]),
        missed=frozenset(positions[name] for name in missed),
    )
