"""The three questions that can be asked, each with its peers and what they are compared with."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from loadtest.comparison.catalogue import BASELINES, NOOP_PEERS, batching_baselines, batching_peers, chosen
from loadtest.comparison.peer import Peer


@dataclass(frozen=True, kw_only=True)
class Study:
    """One comparison."""

    name: str
    """Part of the report's file name."""

    title: str
    peers: Sequence[Peer]
    baselines: Callable[[str], Sequence[str]]
    """See `summary.rows`."""

    ratio: str
    """Heading of the ratio's column."""

    model: bool = True
    """Whether answers come from a model."""


def servers(peers: str) -> Study:
    """Our service against other servers; `peers` as `catalogue.chosen`."""
    return Study(
        name="compare",
        title="Servers compared",
        peers=chosen(peers),
        baselines=lambda _: BASELINES,
        ratio="× FastAPI + ONNX Runtime",
    )


def noop() -> Study:
    """What the HTTP side alone can do, with a model that does nothing."""
    return Study(
        name="noop",
        title="Servers compared, with a model that does nothing",
        peers=NOOP_PEERS,
        baselines=lambda _: ["fastapi-noop"],
        ratio="× FastAPI",
        model=False,
    )


def batching(variants: Sequence[str]) -> Study:
    """Our service with batching off, on and automatic."""
    return Study(
        name="batching",
        title="Batching off, on and automatic",
        peers=batching_peers(variants),
        baselines=batching_baselines,
        ratio="× better of off and on",
    )
