"""Give the chunks of a job to the workers of a Ray cluster, whose nodes may join, leave and die.

A worker gets the next chunk when it has written the last one, so that chunks with large images delay only their own
worker. A chunk whose worker was lost goes back to the queue: it may be scored twice, but its part has one name and one
content.
"""

from __future__ import annotations

import contextlib
import time
from collections import Counter, deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

from models.common.errors import HalftoneError
from serving.batch.job import Job
from serving.batch.nodes import Prepared, Worker, discard

POLL_SECONDS = 2.0
"""Time after which nodes are looked for again."""

NODE_SECONDS = 60.0
"""Time that a run waits for a node with cores while it has none."""


@dataclass(frozen=True)
class ScoredChunk:
    """A chunk whose part is written."""

    chunk: int
    """Number of the chunk."""

    rows: int
    """Number of images in the chunk."""

    node: str
    """Name of the node that scored it, and the beginning of its id."""

    variant: str
    """Variant that the node runs."""

    started: float
    """Start, in monotonic seconds of this machine."""

    ended: float
    """End, in monotonic seconds of this machine."""


@dataclass(frozen=True)
class RefusedNode:
    """A node that can't score."""

    node: str
    """Its name and the beginning of its id: several nodes may be on one machine."""

    reason: str


@dataclass(frozen=True, kw_only=True)
class Plan:
    """What to score, and how."""

    output: str
    job: Job
    chunks: Sequence[int]
    """Numbers of the chunks."""

    prepare: Callable[[str, int], Any]
    """Starts to prepare the node with this id and this number of CPUs; returns the reference of the `Prepared`."""

    attempts: int
    """Workers that a chunk may lose before the run ends with an error: an image may end every worker."""

    alone: bool
    """True if Ray was started for this run: a node that has left does not come back."""


@dataclass(eq=False)
class _Running:
    """A worker and its node."""

    actor: Any
    node: str
    label: str
    prepared: Prepared
    chunk: int | None = None
    started: float = 0.0


@dataclass
class _Known:
    """A node that was seen."""

    label: str
    prepared: Prepared | None = None
    refused: str = ""


class Schedule:
    """The state of a run.

    Args:
        ray: the module, connected to the cluster.
        plan: what to score.
    """

    def __init__(self, ray: Any, plan: Plan) -> None:
        self.ray, self.plan = ray, plan
        self._queue = deque(plan.chunks)
        self._nodes: dict[str, _Known] = {}
        self._idle: list[_Running] = []
        self._pending: dict[Any, Callable[[Any], Iterator[ScoredChunk | RefusedNode]]] = {}
        self._losses: Counter[int | str] = Counter()
        self._last_node = time.monotonic()

    def run(self) -> Iterator[ScoredChunk | RefusedNode]:
        """Score all chunks; yield each one when its part is written, and each node that can't score.

        Raises:
            HalftoneError: a chunk failed or has lost too many workers, or no node can score.
        """
        left, looked = len(self._queue), -POLL_SECONDS
        try:
            while left:
                if time.monotonic() - looked >= POLL_SECONDS:
                    self._look_for_nodes()
                    looked = time.monotonic()
                self._assign()
                for event in self._next():
                    left -= isinstance(event, ScoredChunk)
                    yield event
        finally:
            with contextlib.suppress(self.ray.exceptions.RayError):
                self._discard_bundles()

    def _look_for_nodes(self) -> None:
        """Prepare nodes that are new, forget those that have left."""
        alive = self._alive()
        self._nodes = {node: known for node, known in self._nodes.items() if node in alive}
        for node, each in alive.items():
            cpus = int(each["Resources"].get("CPU", 0))
            if cpus and node not in self._nodes:
                self._nodes[node] = _Known(f"{each['NodeManagerHostname']} ({node[:8]})")
                self._pending[self.plan.prepare(node, cpus)] = partial(self._prepared, node)
        if not all(known.refused for known in self._nodes.values()):
            self._last_node = time.monotonic()
        elif self._nodes and not self._pending and not self._idle:
            reasons = "; ".join(f"{each.label}: {each.refused}" for each in self._nodes.values())
            raise HalftoneError(f"no node can score: {reasons}")
        elif not self._nodes:
            self._check_wait()

    def _check_wait(self) -> None:
        """Raise HalftoneError if there has been no node for too long."""
        waited = time.monotonic() - self._last_node
        if self.plan.alone and waited > POLL_SECONDS:
            raise failed(RuntimeError("Ray has lost its processes on this machine"))
        if waited > NODE_SECONDS:
            raise HalftoneError(
                f"the cluster has had no node with CPUs for {NODE_SECONDS:g} s: the finished parts are kept; add a "
                "node, then run the same command again to resume"
            )

    def _assign(self) -> None:
        while self._queue and self._idle:
            worker = self._idle.pop(0)
            worker.chunk, worker.started = self._queue.popleft(), time.monotonic()
            self._pending[worker.actor.score.remote(worker.chunk)] = partial(self._scored, worker)

    def _next(self) -> Iterator[ScoredChunk | RefusedNode]:
        """Wait for what ends next, for some time, and handle it."""
        if not self._pending:
            time.sleep(POLL_SECONDS)
            return
        done, _ = self.ray.wait(list(self._pending), timeout=POLL_SECONDS)
        for ref in done:
            yield from self._pending.pop(ref)(ref)

    def _prepared(self, node: str, ref: Any) -> Iterator[RefusedNode]:
        known = self._nodes.get(node)
        try:
            prepared = self.ray.get(ref)
        except self.ray.exceptions.RayTaskError as error:
            if known:
                known.refused = _cause(error)
                yield RefusedNode(known.label, known.refused)
            return
        except self.ray.exceptions.RayError as error:
            yield from self._failed_on(node, error)
            if node in self._nodes and not self._nodes[node].refused:
                # Tried again when nodes are looked for.
                del self._nodes[node]
            return
        if known:
            known.prepared = prepared
            for _ in range(min(prepared.workers, len(self.plan.chunks))):
                self._start(node, known.label, prepared)

    def _start(self, node: str, label: str, prepared: Prepared) -> None:
        """Start a worker on a node."""
        worker = _Running(
            self.ray.remote(Worker)
            .options(num_cpus=prepared.settings.worker_threads, max_restarts=0, **on_node(node))
            .remote(prepared, self.plan.output, self.plan.job),
            node,
            label,
            prepared,
        )
        self._pending[worker.actor.ready.remote()] = partial(self._ready, worker)

    def _ready(self, worker: _Running, ref: Any) -> Iterator[RefusedNode]:
        try:
            self.ray.get(ref)
        except self.ray.exceptions.RayError as error:
            yield from self._failed_on(worker.node, error)
            if worker.node in self._nodes and not self._nodes[worker.node].refused:
                self._start(worker.node, worker.label, worker.prepared)
        else:
            self._idle.append(worker)

    def _scored(self, worker: _Running, ref: Any) -> Iterator[ScoredChunk]:
        assert worker.chunk is not None
        try:
            rows = self.ray.get(ref)
        except self.ray.exceptions.RayTaskError as error:
            raise failed(error) from None
        except self.ray.exceptions.RayError as error:
            self._lost(worker, worker.chunk, error)
            return
        variant = worker.prepared.settings.variant
        yield ScoredChunk(worker.chunk, rows, worker.label, variant, worker.started, time.monotonic())
        self._idle.append(worker)

    def _lost(self, worker: _Running, chunk: int, error: Exception) -> None:
        """Queue the chunk of a lost worker again, and replace the worker if its node is still there."""
        self._queue.appendleft(chunk)
        if worker.node not in self._alive():
            self._nodes.pop(worker.node, None)
            self._idle = [each for each in self._idle if each.node != worker.node]
            return
        self._losses[chunk] += 1
        if self._losses[chunk] >= self.plan.attempts:
            raise failed(error)
        self._start(worker.node, worker.label, worker.prepared)

    def _failed_on(self, node: str, error: Exception) -> Iterator[RefusedNode]:
        """Refuse a node that failed again and again before it scored anything; forget one that has left."""
        self._losses[node] += 1
        known = self._nodes.get(node)
        if known and node in self._alive() and self._losses[node] >= self.plan.attempts:
            known.refused = _cause(error)
            yield RefusedNode(known.label, known.refused)
        elif known and node not in self._alive():
            del self._nodes[node]

    def _alive(self) -> dict[str, Any]:
        return {each["NodeID"]: each for each in self.ray.nodes() if each["Alive"]}

    def _discard_bundles(self) -> None:
        task = self.ray.remote(discard)
        refs = [
            task.options(num_cpus=0, max_retries=0, **on_node(node)).remote(known.prepared.artifacts)
            for node, known in self._nodes.items()
            if known.prepared and known.prepared.artifacts
        ]
        if refs:
            self.ray.wait(refs, num_returns=len(refs), timeout=POLL_SECONDS)


def on_node(node: str) -> dict[str, Any]:
    """Return the options of a task or actor that runs on this node or not at all."""
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    return {"scheduling_strategy": NodeAffinitySchedulingStrategy(node, soft=False)}


def _cause(error: Any) -> str:
    """Return what was raised on a node, as one line."""
    cause = getattr(error, "cause", None) or error
    return " ".join(str(cause).split()) or type(cause).__name__


def failed(error: Exception) -> HalftoneError:
    """Return what to do about an error of Ray or of a worker."""
    cause = str(error).strip().splitlines()[-1]
    return HalftoneError(
        f"the workers failed ({cause}): the finished parts are kept, run the same command again to resume"
    )
