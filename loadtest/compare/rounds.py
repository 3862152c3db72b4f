"""Interleaved rounds: each round starts, warms up, measures and stops every peer in turn.

A machine's speed drifts within minutes, so ratios are taken within a round, and every second round goes through the
peers in the opposite order. For servers that differ by less than that drift, `together` starts all of them first and
alternates between them within seconds.
"""

from __future__ import annotations

import contextlib
import json
import subprocess
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from loadtest.client.encoding import request
from loadtest.client.load import Cell, Load, percentile
from loadtest.reporting.cli import CompareError, PeerError
from loadtest.reporting.host import usable_cores
from loadtest.servers.peer import Peer, Running, expand, running
from loadtest.servers.process import ROOT

Generator = Callable[[Load], Cell]

_WARM_UP_CLIENTS = 8
_LOOP_GRACE_SECONDS = 90


@dataclass(frozen=True, kw_only=True)
class ComparisonPlan:
    """Peers, images and conditions of one run.

    Raises:
        CompareError: no image has a right class.
    """

    peers: Sequence[Peer]
    pictures: Mapping[str, bytes]
    labels: Mapping[str, int]
    """Right class index of each image; undecided ones are missing."""

    clients: Sequence[int]
    seconds: float
    rounds: int
    variant: str
    """Replaces `{variant}` in the settings of the peers."""

    generate: Generator
    interpreter: Callable[[Peer], Path]
    """Returns a peer's Python; raises PeerError."""

    say: Callable[[str], None]
    together: bool = False
    """Let all servers run during all rounds, so that they alternate within seconds; for servers that use
    neither CPU time nor much memory while idle."""

    def __post_init__(self) -> None:
        if not self.decided:
            raise CompareError(
                f"no decided picture: none of {len(self.pictures)} pictures has a right class, because their two best "
                "classes are nearly as probable: name other photos with --images, or the right classes with --labels"
            )

    @property
    def decided(self) -> list[str]:
        """Names of the images that have a right class; these are sent, in this order."""
        return [name for name in self.pictures if name in self.labels]


@dataclass
class PeerResult:
    """Measurements of one peer."""

    peer: Peer
    cells: list[dict[int, Cell]] = field(default_factory=list)
    """Per round: number of clients to figures. A loop without HTTP has the same cell for every number."""

    cold_starts: list[float] = field(default_factory=list)
    peaks_mib: list[float] = field(default_factory=list)
    """Resident memory of all processes, the peak of each."""

    shares_mib: list[float] = field(default_factory=list)
    """Largest proportional set size of all processes: shared pages count once."""

    reason: str = ""
    """Reason why figures are missing."""


def measure(plan: ComparisonPlan) -> list[PeerResult]:
    """Measure all rounds; a peer that fails is left out of later rounds and keeps its place, with the reason."""
    results = [PeerResult(peer) for peer in plan.peers]
    if plan.together:
        with contextlib.ExitStack() as stack:
            servers = _start_all(plan, [result for result in results if not result.peer.loop], stack)
            _measure_in_turn(plan, servers, [result for result in results if result.peer.loop])
        return results
    for number in range(plan.rounds):
        for result in results if number % 2 == 0 else reversed(results):
            if result.reason:
                continue
            plan.say(f"round {number + 1} of {plan.rounds}: {result.peer.name}")
            try:
                (_measure_loop if result.peer.loop else _measure_server)(plan, result)
            except PeerError as error:
                result.reason = str(error)
                plan.say(f"{result.peer.name}: {error}")
    return results


def _start_all(
    plan: ComparisonPlan, results: Sequence[PeerResult], stack: contextlib.ExitStack
) -> list[tuple[PeerResult, Running]]:
    """Start and warm up the servers, and return those that serve; they run until the stack is closed."""
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


def _measure_in_turn(plan: ComparisonPlan, servers: list[tuple[PeerResult, Running]], loops: list[PeerResult]) -> None:
    for number in range(plan.rounds):
        plan.say(f"round {number + 1} of {plan.rounds}")
        for result, _ in servers:
            result.cells.append({})
        for clients in plan.clients:
            for result, server in servers if number % 2 == 0 else reversed(servers):
                result.cells[-1][clients] = _cell(plan, server, clients)
        for result in loops:
            _measure_loop(plan, result)
    for result, server in servers:
        _weigh(result, server)


def _measure_server(plan: ComparisonPlan, result: PeerResult) -> None:
    first = next(iter(plan.pictures.values()))
    with running(result.peer, plan.interpreter(result.peer), first, plan.variant) as server:
        _warm_up(plan, server)
        result.cells.append({clients: _cell(plan, server, clients) for clients in plan.clients})
        result.cold_starts.append(server.cold_start)
        _weigh(result, server)


def _cell(plan: ComparisonPlan, server: Running, clients: int) -> Cell:
    before = server.cpu_seconds()
    cell = plan.generate(load_of(plan, server, clients, plan.seconds))
    return replace(cell, cpu_seconds=server.cpu_seconds() - before)


def _weigh(result: PeerResult, server: Running) -> None:
    result.peaks_mib.append(server.peak_mib())
    if (share := server.share_mib()) is not None:
        result.shares_mib.append(share)


def _warm_up(plan: ComparisonPlan, server: Running) -> None:
    plan.generate(load_of(plan, server, min(_WARM_UP_CLIENTS, max(plan.clients)), max(1.0, plan.seconds / 2)))


def load_of(plan: ComparisonPlan, server: Running, clients: int, seconds: float) -> Load:
    """Return the load of a server: the images with a right class, in the encoding that the server takes."""
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


def _measure_loop(plan: ComparisonPlan, result: PeerResult) -> None:
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
        raise PeerError(f"ended with {done.returncode}; last output: {' '.join(done.stderr.split())[-300:]}")
    cell = _loop_cell(json.loads(done.stdout.splitlines()[-1]), plan)
    result.cells.append(dict.fromkeys(plan.clients, cell))


def _loop_cell(figures: Mapping[str, Any], plan: ComparisonPlan) -> Cell:
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
