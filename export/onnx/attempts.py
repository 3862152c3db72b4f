"""`model.PRECISION.json`: what was tried to make a graph of lower precision pass its gate, and what each step cost."""

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

SCHEMA = 1
NAMES_KEPT = 100


@dataclass(frozen=True, kw_only=True)
class Attempt:
    """One attempt."""

    kept: str
    """What stayed in FP32, in words."""

    judged_by: str
    """`search` on a few pictures, or the `parity gate`."""

    verdict: Verdict
    """Whether that was enough."""

    reasons: list[str]
    """By how much it failed; empty where it passed."""

    fp32_nodes: int
    """Number of nodes kept in FP32, without the normalisation of the input."""

    fp32_operators: dict[str, int]
    """Those nodes by operator."""

    fp32_names: list[str]
    """Their names, the first hundred."""

    weight_bytes: dict[str, int]
    """Bytes of weights by element type."""

    figures: dict[str, Any]
    """What was measured."""


def rung(
    graph: onnx.ModelProto,
    kept: Collection[str],
    words: str,
    *,
    judged_by: str,
    reasons: list[str],
    figures: dict[str, Any],
) -> Attempt:
    """Describe an attempt.

    Args:
        graph: the graph of lower precision.
        kept: names of its FP32 nodes.
        words: what they are.
        judged_by: as in `Attempt`.
        reasons: by how much it failed.
        figures: what was measured.
    """
    nodes = [node for node in graph.graph.node if node.name in kept]
    return Attempt(
        kept=words,
        judged_by=judged_by,
        verdict="FAILED" if reasons else "PASSED",
        reasons=reasons,
        fp32_nodes=len(nodes),
        fp32_operators=dict(Counter(node.op_type for node in nodes)),
        fp32_names=[node.name for node in nodes][:NAMES_KEPT],
        weight_bytes=precision_histogram(graph),
        figures=figures,
    )


def proved_rung(graph: onnx.ModelProto, kept: Collection[str], words: str, records: Sequence[ParityRecord]) -> Attempt:
    """Describe an attempt that went through the gate: one record for each runtime that ran the graph."""
    reasons = [f"{record.variant}: {reason}" for record in records for reason in record.reasons]
    figures = {record.variant: record.figures for record in records}
    return rung(graph, kept, words, judged_by="parity gate", reasons=reasons, figures=figures)


def save_ladder(bundle: Bundle, precision: str, rungs: Sequence[Attempt], *, calibration: str) -> str:
    """Write the attempts beside the graph; returns the file's name.

    Args:
        bundle: that holds `model.PRECISION.onnx`.
        precision: of the graph.
        rungs: the attempts in order; the last one is the graph that is there now.
        calibration: the pictures that ranges were measured on, in words.
    """
    name, graph = f"model.{precision}.json", f"model.{precision}.onnx"
    values = {
        "schema": SCHEMA,
        "precision": precision,
        "verdict": rungs[-1].verdict,
        "graph_sha256": bundle.manifest.files[graph].sha256,
        "calibration": calibration,
        "ladder": [asdict(each) for each in rungs],
    }
    command = f"`python -m export.onnx --model {bundle.manifest.name} --precision {precision}`"
    data = (json.dumps(values, indent=1, ensure_ascii=False) + "\n").encode()
    bundle.write(name, data, made_by=command, made_from=[WEIGHTS, graph])
    return name
