"""Repair of an FP16 graph that fails its gate: find what needs FP32, keep that much of it and no more, prove again.

`python -m export.onnx --model NAME --precision fp16` does it by itself, also where the graph passes only because ONNX
Runtime computes parts of it in FP32 on the CPU (`export.onnx.fp16.convert.rounded`). What overflows shows in one run of the FP32
graph, which records the largest magnitude of every tensor. Where that explains nothing, the operators known to need
range (normalisation, softmax, exponentials, squeeze-excite, first and last layer) are tried kind by kind, then layers
by bisection. A trial runs a few pictures; only a graph that passes there goes to the gate. Every attempt is written to
`model.fp16.json`. About a minute for ResNet-18 on two cores.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import onnx
from rich.console import Console
from rich.progress import Progress

from export.onnx.attempts import Attempt, proved_rung, rung, save_ladder
from export.onnx.calibration import TRAIN, CalibrationPictures, calibration_pictures
from export.onnx.fp16.convert import halve
from export.onnx.fp16.islands import Search, proposals
from export.onnx.metadata import describe, normalisation, precision_histogram
from export.parity.gate import Gate
from export.parity.prove import prove
from export.parity.record import current
from models.bundle.bundle import WEIGHTS, Bundle
from models.common.cli import ANSWER_IS_NO, DONE

SOURCE, TARGET, VARIANT = "model.fp32.onnx", "model.fp16.onnx", "onnxruntime-fp16"
SEARCH_PICTURES = 32
MIN_FP16_SHARE = 0.5
"""A graph with fewer of its weights' bytes in FP16 would be FP16 by name only."""


def repair(bundle: Bundle, *, data: Path | None, report: Callable[[Attempt], None]) -> list[Attempt]:
    """Put an FP16 graph that passes the gate into the bundle, with as few nodes in FP32 as are found to be needed.

    A plain graph stays where it passed its gate and also answers right with every result rounded to FP16.

    Args:
        bundle: holds a valid `model.fp32.onnx`, and `model.fp16.onnx` with its parity record.
        data: labelled pictures to prove on, or None for the sample photographs.
        report: is told of every attempt.

    Returns:
        The attempts in order, also written to `model.fp16.json`. The last one tells whether it worked; where it did
        not, the bundle holds its graph with a record that failed.

    Raises:
        HalftoneError: a file is missing or stale, or the pictures can't be used.
    """
    bundle.fresh(SOURCE)
    graph = onnx.load_from_string(bundle.read(SOURCE))
    pictures = _pictures(bundle, data)
    search = Search(graph, pictures.pixels, bundle.manifest.trained, bundle.manifest.temperature, report)
    plain = onnx.load_from_string(bundle.read(TARGET))
    passed = search.add(proved_rung(plain, (), "nothing: plain FP16", [current(bundle, VARIANT)]))
    # ONNX Runtime skips roundings on the CPU, so it may pass what overflows on a GPU.
    if not (search.enough(set(), "nothing, with every result rounded") and passed):
        for kept, words in proposals(search):
            if _proved(bundle, search, kept, words, data):
                break
    save_ladder(bundle, "fp16", search.rungs, calibration=pictures.description)
    return search.rungs


def repair_and_print(bundle: Bundle, *, data: Path | None) -> int:
    """`repair`, with a line on stderr for each attempt; returns the exit code."""
    console = Console(stderr=True, soft_wrap=True)
    console.print(f"checking what {TARGET} needs FP32 for")
    rungs = repair(bundle, data=data, report=lambda each: console.print(_line(each), markup=False, highlight=False))
    last, ladder = rungs[-1], bundle.folder / "model.fp16.json"
    if last.verdict == "FAILED":
        print(f"FAILED {VARIANT}: no attempt passed its gate ({'; '.join(last.reasons)}); see {ladder}")
        return ANSWER_IS_NO
    size, what = bundle.manifest.files[TARGET].size / 1e6, f"{last.fp32_nodes} nodes stay FP32"
    print(f"{bundle.folder / TARGET} ({size:.1f} MB): {what if last.fp32_nodes else 'FP16 throughout'}; see {ladder}")
    return DONE


def _pictures(bundle: Bundle, data: Path | None) -> CalibrationPictures:
    folder = data / TRAIN if data is not None and (data / TRAIN).is_dir() else data
    return calibration_pictures(bundle.manifest.input, None, folder, count=SEARCH_PICTURES)


def _proved(bundle: Bundle, search: Search, kept: set[str], words: str, data: Path | None) -> bool:
    """Put the graph with these islands into the bundle and ask the gate."""
    graph = halve(search.graph, kept | normalisation(search.graph))
    sizes = precision_histogram(graph)
    share = sizes.get("FLOAT16", 0) / (sizes.get("FLOAT16", 0) + sizes.get("FLOAT", 0))
    if share < MIN_FP16_SHARE:
        reason = f"only {share:.0%} of the weights' bytes would be FP16, below {MIN_FP16_SHARE:.0%}"
        return search.add(rung(graph, kept, words, judged_by="parity gate", reasons=[reason], figures={}))
    describe(graph, bundle, "fp16")
    command = f"`python -m export.onnx --model {bundle.manifest.name} --precision fp16`"
    bundle.write(TARGET, graph.SerializeToString(), made_by=command, made_from=[WEIGHTS, SOURCE])
    with Progress(console=Console(stderr=True), transient=True, disable=not Console(stderr=True).is_terminal) as bar:
        records = prove(bundle, {VARIANT: Gate.for_precision("fp16")}, data, bar)
    return search.add(proved_rung(graph, kept, words, records))


def _line(attempt: Attempt) -> str:
    why = f" ({'; '.join(attempt.reasons)})" if attempt.reasons else ""
    return f"{attempt.verdict} by {attempt.judged_by}: FP32 kept for {attempt.kept}, {attempt.fp32_nodes} nodes{why}"
