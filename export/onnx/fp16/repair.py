"""Repair an FP16 graph that fails its gate: find the nodes that need FP32, keep only those in FP32, prove again.

`python -m export.onnx --model NAME --precision fp16` runs it, also if the graph passes only because ONNX Runtime
computes parts of it in FP32 on the CPU (`export.onnx.fp16.convert.emulate_fp16`). One run of the FP32 graph records the
largest magnitude of every tensor and shows which overflow. If that is not enough, the operators known to need range
(normalisation, softmax, exponentials, squeeze-excite, first and last layer) are tried kind by kind, then layers by
bisection. A trial runs a few images; only a graph that passes it goes to the gate. Every attempt is written to
`model.fp16.json`. About a minute for ResNet-18 on two cores.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import onnx
from rich.console import Console
from rich.progress import Progress

from export.onnx.attempts import Attempt, describe_attempt, describe_proof, save_attempts
from export.onnx.calibration import calibration_pictures
from export.onnx.fp16.convert import to_fp16
from export.onnx.fp16.islands import Search, proposals
from export.onnx.metadata import describe, normalisation, precision_histogram
from export.parity.gate import Gate
from export.parity.prove import prove
from export.parity.record import current
from models.bundle.bundle import WEIGHTS, Bundle
from models.common.cli import ANSWER_IS_NO, DONE
from models.common.text import printable

SOURCE, TARGET, VARIANT = "model.fp32.onnx", "model.fp16.onnx", "onnxruntime-fp16"
SEARCH_PICTURES = 32
MIN_FP16_SHARE = 0.5
"""Lowest share of the weights' bytes in FP16; below it, the graph would be FP16 by name only."""


def repair(bundle: Bundle, *, data: Path | None, report: Callable[[Attempt], None]) -> list[Attempt]:
    """Write an FP16 graph that passes the gate into the bundle, with the fewest FP32 nodes that the search finds.

    A plain graph stays if it passed its gate and also passes with every result rounded to FP16.

    Args:
        bundle: holds a valid `model.fp32.onnx`, and `model.fp16.onnx` with its parity record.
        data: labelled images to prove on, or None for the sample photographs.
        report: called with every attempt.

    Returns:
        The attempts in order, also written to `model.fp16.json`. The verdict of the last one is the result; if it is
        FAILED, the bundle holds that graph with a failed record.

    Raises:
        HalftoneError: a file is missing or stale, or the images can't be used.
    """
    bundle.fresh(SOURCE)
    graph = onnx.load_from_string(bundle.read(SOURCE))
    pictures = calibration_pictures(bundle, data, None, count=SEARCH_PICTURES)
    search = Search(graph, pictures.pixels, bundle.manifest.trained, bundle.manifest.temperature, report)
    plain = onnx.load_from_string(bundle.read(TARGET))
    passed = search.add(describe_proof(plain, (), "nothing: plain FP16", [current(bundle, VARIANT)]))
    # ONNX Runtime skips roundings on the CPU, so a graph that overflows on a GPU may pass.
    if not (search.enough(set(), "nothing, with every result rounded") and passed):
        for kept, words in proposals(search):
            if _proved(bundle, search, kept, words, data):
                break
    save_attempts(bundle, "fp16", search.attempts, calibration=pictures.description)
    return search.attempts


def repair_and_print(bundle: Bundle, *, data: Path | None) -> int:
    """Run `repair` with a line on stderr for each attempt, and return the exit code."""
    console = Console(stderr=True, soft_wrap=True)
    console.print(f"checking what {TARGET} needs FP32 for")
    attempts = repair(bundle, data=data, report=lambda each: console.print(_line(each), markup=False, highlight=False))
    last, record = attempts[-1], printable(bundle.folder / "model.fp16.json")
    if last.verdict == "FAILED":
        print(f"FAILED {VARIANT}: no attempt passed its gate ({'; '.join(last.reasons)}); see {record}")
        return ANSWER_IS_NO
    size = bundle.manifest.files[TARGET].size / 1e6
    what = f"{last.fp32_nodes} nodes stay FP32" if last.fp32_nodes else "FP16 throughout"
    print(f"{printable(bundle.folder / TARGET)} ({size:.1f} MB): {what}; see {record}")
    return DONE


def _proved(bundle: Bundle, search: Search, kept: set[str], words: str, data: Path | None) -> bool:
    """Write the graph with these islands into the bundle and prove it; return True if it passed."""
    graph = to_fp16(search.graph, kept | normalisation(search.graph))
    sizes = precision_histogram(graph)
    share = sizes.get("FLOAT16", 0) / (sizes.get("FLOAT16", 0) + sizes.get("FLOAT", 0))
    if share < MIN_FP16_SHARE:
        reason = f"only {share:.0%} of the weights' bytes would be FP16, below {MIN_FP16_SHARE:.0%}"
        attempt = describe_attempt(graph, kept, words, evaluated_by="parity gate", reasons=[reason], figures={})
        return search.add(attempt)
    describe(graph, bundle, "fp16")
    command = f"`python -m export.onnx --model {bundle.name} --precision fp16`"
    bundle.write(TARGET, graph.SerializeToString(), made_by=command, made_from=[WEIGHTS, SOURCE])
    with Progress(console=Console(stderr=True), transient=True, disable=not Console(stderr=True).is_terminal) as bar:
        records = prove(bundle, {VARIANT: Gate.for_precision("fp16")}, data, bar)
    return search.add(describe_proof(graph, kept, words, records))


def _line(attempt: Attempt) -> str:
    why = f" ({'; '.join(attempt.reasons)})" if attempt.reasons else ""
    return f"{attempt.verdict} by {attempt.evaluated_by}: FP32 kept for {attempt.kept}, {attempt.fp32_nodes} nodes{why}"
