"""`model.PRECISION.json`: the attempts to make a graph of lower precision pass its gate, and the cost of each.

The file is a record for people: no code reads it.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Collection, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import onnx

from export.onnx.metadata import precision_histogram
from export.parity.record import ParityRecord, Verdict
from models.bundle.bundle import WEIGHTS, Bundle

SCHEMA = 2
NAMES_KEPT = 100


@dataclass(frozen=True, kw_only=True)
class Attempt:
    """One graph of lower precision: which nodes stayed in FP32, and how far that was from passing."""

    kept: str
    """Nodes that stayed in FP32, in words."""

    evaluated_by: str
    """`search` on a few images, or the `parity gate`."""

    verdict: Verdict
    """PASSED if that was enough."""

    reasons: list[str]
    """Missed thresholds with their figures; empty if it passed."""

    at_limit: list[str]
    """Thresholds that it passes, but may miss on other pictures."""

    fp32_nodes: int
    """Number of nodes in FP32, without the normalisation of the input."""

    fp32_operators: dict[str, int]
    """Number of those nodes by operator."""

    fp32_names: list[str]
    """Names of the first hundred of those nodes."""

    weight_bytes: dict[str, int]
    """Bytes of weights by element type."""

    figures: dict[str, Any]
    """Figures of `export.parity.metrics.compare`; by variant for the parity gate."""


def describe_attempt(
    graph: onnx.ModelProto,
    kept: Collection[str],
    words: str,
    *,
    evaluated_by: str,
    reasons: list[str],
    at_limit: Sequence[str] = (),
    figures: dict[str, Any],
) -> Attempt:
    """Return the record of an attempt.

    Args:
        graph: the graph of lower precision.
        kept: names of its FP32 nodes.
        words: these nodes in words.
        evaluated_by: as in `Attempt`.
        reasons: missed thresholds with their figures.
        at_limit: as in `Attempt`.
        figures: as in `Attempt`.
    """
    nodes = [node for node in graph.graph.node if node.name in kept]
    return Attempt(
        kept=words,
        evaluated_by=evaluated_by,
        verdict="FAILED" if reasons else "PASSED",
        reasons=reasons,
        at_limit=list(at_limit),
        fp32_nodes=len(nodes),
        fp32_operators=dict(Counter(node.op_type for node in nodes)),
        fp32_names=[node.name for node in nodes][:NAMES_KEPT],
        weight_bytes=precision_histogram(graph),
        figures=figures,
    )


def describe_proof(
    graph: onnx.ModelProto,
    kept: Collection[str],
    words: str,
    records: Sequence[ParityRecord],
    *,
    at_limit: Sequence[str] = (),
) -> Attempt:
    """Return the record of an attempt that the parity gate evaluated, from one parity record for each runtime."""
    return describe_attempt(
        graph,
        kept,
        words,
        evaluated_by="parity gate",
        reasons=[f"{record.variant}: {reason}" for record in records for reason in record.reasons],
        at_limit=at_limit,
        figures={record.variant: record.figures for record in records},
    )


def save_attempts(bundle: Bundle, precision: str, attempts: Sequence[Attempt], *, calibration: str) -> str:
    """Write the attempts into the bundle and return the file's name.

    Args:
        bundle: holds `model.PRECISION.onnx`.
        precision: of the graph.
        attempts: in order; the last one made the graph that the bundle holds now.
        calibration: the images that ranges were measured on, in words.
    """
    name, graph = f"model.{precision}.json", f"model.{precision}.onnx"
    values = {
        "schema": SCHEMA,
        "precision": precision,
        "verdict": attempts[-1].verdict,
        "graph_sha256": bundle.manifest.files[graph].sha256,
        "calibration": calibration,
        "attempts": [asdict(each) for each in attempts],
    }
    command = f"`python -m export.onnx --model {bundle.name} --precision {precision}`"
    data = (json.dumps(values, indent=1, ensure_ascii=False) + "\n").encode()
    bundle.write(name, data, made_by=command, made_from=[WEIGHTS, graph])
    return name
