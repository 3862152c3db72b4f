"""The three questions that can be asked, each with its peers and what they are compared with."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from loadtest.compare.summary import References
from loadtest.servers.catalogue import (
    BASELINES,
    LIMITS,
    NOOP_PEERS,
    SAME_ENGINE,
    batching_baselines,
    batching_peers,
    chosen,
)
from loadtest.servers.peer import Peer


@dataclass(frozen=True, kw_only=True)
class Study:
    """One comparison."""

    name: str
    """Part of the report's file name."""

    title: str
    peers: Sequence[Peer]
    references: References
    """What the rows are divided by."""

    model: bool = True
    """Whether answers come from a model."""

    together: bool = False
    """Whether all servers run at once and take turns."""


def servers(peers: str) -> Study:
    """Our service against other servers; `peers` as `catalogue.chosen`."""
    return Study(
        name="compare",
        title="Servers compared",
        peers=chosen(peers),
        references={
            "× FastAPI + ONNX Runtime": lambda _: BASELINES,
            "× FastAPI + our engine": lambda _: SAME_ENGINE,
            "× limit": lambda _: LIMITS,
        },
    )


def noop() -> Study:
    """What the HTTP side alone can do, with a model that does nothing."""
    return Study(
        name="noop",
        title="Servers compared, with a model that does nothing",
        peers=NOOP_PEERS,
        references={"× FastAPI": lambda _: ["fastapi-noop"]},
        model=False,
    )


def batching(variants: Sequence[str]) -> Study:
    """Our service with batching off, on and automatic."""
    return Study(
        name="batching",
        title="Batching off, on and automatic",
        peers=batching_peers(variants),
        references={"× better of off and on": batching_baselines},
        together=True,
    )
