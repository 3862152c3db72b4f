"""The four studies that `loadtest.compare` can run: their peers, and the references of the ratios."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from loadtest.compare.summary import References
from loadtest.servers.catalogue import (
    BASELINES,
    LIMITS,
    NOOP_PEERS,
    OTHER_DECODERS,
    OURS,
    SAME_ENGINE,
    batching_baselines,
    batching_peers,
    chosen,
)
from loadtest.servers.peer import Peer


@dataclass(frozen=True, kw_only=True)
class Study:
    """One comparison of servers."""

    name: str
    """Part of the report's file name."""

    title: str
    peers: Sequence[Peer]
    references: References
    """Peers whose rates the rows are divided by."""

    model: bool = True
    """True if predictions come from a model; False: the peers respond with a constant."""

    together: bool = False
    """Run all servers at once and load them in turn."""


def servers(peers: str) -> Study:
    """Return the study of our service against other servers; `peers` as in `catalogue.chosen`."""
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


def large(peers: str) -> Study:
    """Return the study of large photographs, with servers that decode them by other libraries."""
    return Study(
        name="large",
        title="Servers compared on large photographs",
        peers=chosen(peers or ",".join((OURS, *SAME_ENGINE, *OTHER_DECODERS, "limit"))),
        references={
            "× OpenCV or Pillow": lambda _: OTHER_DECODERS,
            "× FastAPI + our engine": lambda _: SAME_ENGINE,
            "× limit": lambda _: LIMITS,
        },
    )


def noop() -> Study:
    """Return the study of the HTTP side alone, with a model that does nothing."""
    return Study(
        name="noop",
        title="Servers compared, with a model that does nothing",
        peers=NOOP_PEERS,
        references={"× FastAPI": lambda _: ["fastapi-noop"]},
        model=False,
    )


def batching(variants: Sequence[str]) -> Study:
    """Return the study of our service with batching off, on and automatic."""
    return Study(
        name="batching",
        title="Batching off, on and automatic",
        peers=batching_peers(variants),
        references={"× better of off and on": batching_baselines},
        together=True,
    )
