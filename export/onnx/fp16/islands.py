"""Search for FP32 islands: the nodes that must stay FP32 so that the rest of a graph can be FP16.

Candidates are evaluated on a few images; a set that is enough is reduced by bisection.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import TypeVar

import numpy as np
import numpy.typing as npt
import onnx

from export.onnx.attempts import Attempt, describe_attempt
from export.onnx.fp16.convert import emulate_fp16, to_fp16
from export.onnx.fp16.ranges import beyond_fp16, infer, magnitudes
from export.onnx.metadata import WEIGHTED, layers, normalisation, squeeze_excite
from export.parity.gate import Gate
from export.parity.metrics import compare

TRIALS = 24
"""Most trials to reduce one set of nodes."""

Item = TypeVar("Item")

_KINDS = {
    "the normalisations": {"LayerNormalization", "BatchNormalization", "InstanceNormalization", "GroupNormalization"},
    "softmax": {"Softmax"},
    "exponentials and powers": {"Gelu", "Erf", "Exp", "Pow", "Sigmoid", "Tanh", "HardSwish", "HardSigmoid"},
}


@dataclass
class Search:
    """Evaluation of islands on a few images, with a list of all attempts."""

    graph: onnx.ModelProto
    """FP32 graph of the contract."""

    pixels: npt.NDArray[np.uint8]
    """uint8 (N, S, S, 3) to evaluate on."""

    trained: bool
    """False for random weights, whose top-1 class means nothing."""

    temperature: float
    """Divides the logits before the softmax."""

    report: Callable[[Attempt], None]
    """Called with every attempt."""

    attempts: list[Attempt] = field(default_factory=list)
    """All attempts so far, in order."""

    def __post_init__(self) -> None:
        (self.reference,) = infer(self.graph, self.pixels, ["logits"])

    def add(self, attempt: Attempt) -> bool:
        """Keep and report an attempt; return True if it passed."""
        self.attempts.append(attempt)
        self.report(attempt)
        return attempt.verdict == "PASSED"

    def enough(self, kept: set[str], words: str) -> bool:
        """Return True if FP16 with these nodes in FP32 gives the logits of FP32."""
        half = to_fp16(self.graph, kept | normalisation(self.graph))
        (logits,) = infer(emulate_fp16(half), self.pixels, ["logits"])
        figures = compare(self.reference, logits, None, temperature=self.temperature)
        reasons = Gate.for_precision("fp16").reasons_to_fail(figures, trained=self.trained, few=True)
        return self.add(describe_attempt(half, kept, words, evaluated_by="search", reasons=reasons, figures=figures))


def proposals(search: Search) -> Iterator[tuple[set[str], str]]:
    """Yield islands that were enough for the search, and their description; the most promising first."""
    base = beyond_fp16(search.graph, magnitudes(search.graph, search.pixels))
    out_of_range = "what FP16's range can't hold"
    if base and search.enough(base, out_of_range):
        yield base, out_of_range
    kinds = _kinds(search.graph)
    for words, names in kinds.items():
        if names - base and search.enough(base | names, words):
            needed = set(_reduced(search, base, [[name] for name in sorted(names - base)], words))
            yield base | needed, f"{len(needed)} nodes of {words}"
            yield base | names, words
    everything = base.union(*kinds.values())
    if search.enough(everything, "all of these kinds"):
        yield everything, "all of these kinds"
    needed = set(_reduced(search, base, layers(search.graph), "the layers"))
    yield base | needed, f"{len(needed)} nodes of the layers found by bisection"


def _kinds(graph: onnx.ModelProto) -> dict[str, set[str]]:
    """Return the names of the nodes that are known to need range, by kind."""
    nodes = graph.graph.node
    found = {words: {node.name for node in nodes if node.op_type in operators} for words, operators in _KINDS.items()}
    weighted = [layer[0] for layer in layers(graph)]
    attention = {node.name for node in nodes if node.op_type in WEIGHTED} - set(weighted)
    found["softmax"] |= attention
    found["squeeze-excite"] = squeeze_excite(graph)
    found["the last layer"], found["the first layer"] = set(weighted[-1:]), set(weighted[:1])
    return {words: names for words, names in found.items() if names}


def _reduced(search: Search, base: set[str], groups: list[list[str]], words: str) -> list[str]:
    """Return the names of the fewest groups that are enough together with `base`."""

    def enough(part: list[list[str]]) -> bool:
        names = {name for group in part for name in group}
        return search.enough(base | names, f"{len(part)} of {len(groups)} parts of {words}")

    return [name for group in smallest(groups, enough, trials=TRIALS) for name in group]


def smallest(items: Sequence[Item], enough: Callable[[list[Item]], bool], *, trials: int) -> list[Item]:
    """Return a part of `items` that is enough; if the trials suffice, no item of it can be left out.

    Delta debugging (Zeller and Hildebrandt 2002, "Simplifying and Isolating Failure-Inducing Input", ddmin): try each
    of two halves alone, then all but each of them, then with finer pieces.

    Args:
        items: enough together; this is not tried.
        enough: returns True if a part is enough.
        trials: most calls of `enough`.
    """
    kept, pieces = list(items), 2
    while len(kept) > 1 and trials > 0:
        parts = _parts(kept, pieces)
        # Of two pieces, all but one is the other piece.
        options = parts if pieces == 2 else parts + [_without(kept, part) for part in parts]
        for option in options[:trials]:
            trials -= 1
            if enough(option):
                pieces = 2 if option in parts else max(pieces - 1, 2)
                kept = option
                break
        else:
            if pieces >= len(kept):
                break
            pieces = min(2 * pieces, len(kept))
    return kept


def _parts(items: list[Item], pieces: int) -> list[list[Item]]:
    edges = [index * len(items) // pieces for index in range(pieces + 1)]
    return [items[start:end] for start, end in pairwise(edges)]


def _without(items: list[Item], part: list[Item]) -> list[Item]:
    return [item for item in items if item not in part]
