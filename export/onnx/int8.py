"""INT8 quantisation for ONNX Runtime and OpenVINO: `model.fp32.onnx` to a calibrated and proved `model.int8.onnx`.

`python -m export.onnx --model NAME --precision int8` and `python -m export.openvino --model NAME --precision int8`
call it. NNCF (https://github.com/openvinotoolkit/nncf) quantises weights per channel and activations per tensor to
8 bits by QuantizeLinear/DequantizeLinear pairs, and corrects the biases (Finkelstein et al. 2019). First and last layer
stay FP32: they cost EfficientNet-Lite0 most of its lost accuracy. If that is not enough, the next attempts also keep
layers in FP32 that are known to lose accuracy, then those that are measured to (`export.onnx.sensitivity`). A graph
that passes, but might not on other pictures, is taken only if no further attempt does better. About two minutes for
EfficientNet-Lite0 on two cores.
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
from rich.console import Console
from rich.progress import Progress

from export.onnx.attempts import Attempt, describe_proof, save_attempts
from export.onnx.calibration import CalibrationPictures, calibration_pictures
from export.onnx.metadata import describe, resampling
from export.onnx.quiet import suppress_output
from export.onnx.sensitivity import candidates, most_disturbing
from export.parity.gate import Gate
from export.parity.prove import prove
from export.parity.record import ParityRecord
from export.variants import runtime_class
from models.bundle.bundle import WEIGHTS, Bundle
from models.catalog import architecture
from models.common.cli import ANSWER_IS_NO, DONE
from models.common.errors import HalftoneError
from models.common.text import printable
from models.spec import TRANSFORMERS

SOURCE, TARGET, RECORD = "model.fp32.onnx", "model.int8.onnx", "model.int8.json"
CALIBRATION_PICTURES = 120
MEASURED_PICTURES = 8
"""Images to order the layers by the noise of their quantisation on."""


def export_int8(
    bundle: Bundle, *, data: Path | None, calibrate_on: Path | None, report: Callable[[Attempt], None]
) -> list[Attempt]:
    """Write an INT8 graph into the bundle and prove it on every runtime that runs it here, until an attempt passes.

    One that passes at a limit (`Gate.at_limit`) is tried to be improved, and serves if it can't.

    Args:
        bundle: holds a valid `model.fp32.onnx`.
        data: labelled images to prove on; those of the training calibrate. None for the sample photographs.
        calibrate_on: folder of images to calibrate on instead.
        report: called with every attempt.

    Returns:
        The attempts in order, also written to `model.int8.json`. The verdict of the last one is the result; if it is
        FAILED, the bundle holds that graph with failed records.

    Raises:
        HalftoneError: NNCF is not installed, a file is missing or stale, or the images can't be used.
    """
    bundle.fresh(SOURCE)
    graph = onnx.load_from_string(bundle.read(SOURCE))
    pictures = calibration_pictures(bundle, data, calibrate_on, count=CALIBRATION_PICTURES)
    transformer = any(architecture(name).family in TRANSFORMERS for name in bundle.manifest.architectures)
    attempts: list[Attempt] = []
    made: list[onnx.ModelProto] = []

    def attempt(quantised: onnx.ModelProto, kept: list[str], words: str) -> Attempt:
        _write(bundle, quantised)
        records = _prove(bundle, data)
        at_limit = _at_limit(records, trained=bundle.manifest.trained)
        attempts.append(describe_proof(quantised, kept, words, records, at_limit=at_limit))
        report(attempts[-1])
        return attempts[-1]

    passed: tuple[onnx.ModelProto, list[str], str] | None = None
    for words, kept in candidates(graph, lambda: most_disturbing(graph, made[0], pictures.pixels[:MEASURED_PICTURES])):
        # The first graph stays, to be measured: it has the most nodes in INT8.
        made[1:] = [quantise(graph, pictures.pixels, kept, transformer=transformer)]
        last = attempt(made[-1], kept, words)
        if last.verdict == "PASSED":
            passed = made[-1], kept, words
            if not last.at_limit:
                break
    else:
        if passed and attempts[-1].verdict == "FAILED":
            attempt(*passed)
    save_attempts(bundle, "int8", attempts, calibration=_describe(pictures))
    return attempts


def export_int8_and_print(bundle: Bundle, *, data: Path | None, calibrate_on: Path | None) -> int:
    """Run `export_int8` with a line on stderr for each attempt, and return the exit code."""
    console = Console(stderr=True, soft_wrap=True)
    console.print(f"calibrating and proving {bundle.name} in INT8")

    def report(attempt: Attempt) -> None:
        reasons = attempt.reasons or attempt.at_limit
        why = f" ({'; '.join(reasons)})" if reasons else ""
        limit = " at the limit" if attempt.at_limit and not attempt.reasons else ""
        console.print(
            f"{attempt.verdict}{limit}: FP32 kept for {attempt.kept}, {attempt.fp32_nodes} nodes{why}",
            markup=False,
            highlight=False,
        )

    last = export_int8(bundle, data=data, calibrate_on=calibrate_on, report=report)[-1]
    print(f"calibrated on {json.loads(bundle.read(RECORD))['calibration']}")
    size, record = bundle.manifest.files[TARGET].size / 1e6, bundle.folder / RECORD
    for variant, figures in last.figures.items():
        agreement, same = figures["decided_agreement"], figures["top1_agreement"]["value"]
        print(
            f"{variant}: top-1 same on {same:.2%}, on decided pictures {agreement['value']:.2%}, "
            f"mean KL {figures['mean_kl']:.2e}"
        )
    if last.verdict == "FAILED":
        print(f"FAILED: INT8 is not promoted ({'; '.join(last.reasons)}); see {printable(record)}")
        return ANSWER_IS_NO
    print(f"PASSED: {printable(bundle.folder / TARGET)} ({size:.1f} MB); see {printable(record)}")
    return DONE


def quantise(
    graph: onnx.ModelProto, pixels: npt.NDArray[np.uint8], kept: Sequence[str], *, transformer: bool
) -> onnx.ModelProto:
    """Return the graph with 8-bit weights and activations.

    Args:
        graph: FP32 graph of the contract; it is not changed.
        pixels: uint8 (N, S, S, 3) to measure the activations' ranges on.
        kept: names of the nodes that stay FP32.
        transformer: True if the network is mainly attention; the activations are then smoothed into the weights
            (Xiao et al. 2023, SmoothQuant).

    Raises:
        HalftoneError: NNCF is not installed.
    """
    if transformer:
        return _quantised(graph, pixels, kept, transformer=True, fast=True)
    try:
        return _quantised(graph, pixels, kept, transformer=False, fast=False)
    # The thorough correction of biases runs parts of the graph, and ONNX Runtime can't run every part of some networks
    # (a ResNet-18 of 64 px: "Failed to find node output"). The gate evaluates the result of the fast correction.
    except RuntimeError:
        return _quantised(graph, pixels, kept, transformer=False, fast=True)


def _quantised(
    graph: onnx.ModelProto, pixels: npt.NDArray[np.uint8], kept: Sequence[str], *, transformer: bool, fast: bool
) -> onnx.ModelProto:
    source = onnx.ModelProto()
    source.CopyFrom(graph)
    with suppress_output():
        nncf = _nncf()
        return nncf.quantize(  # type: ignore[no-any-return]
            source,
            nncf.Dataset([{"pixels": each[None]} for each in pixels]),
            subset_size=len(pixels),
            preset=nncf.QuantizationPreset.PERFORMANCE,
            target_device=nncf.TargetDevice.CPU,
            model_type=nncf.ModelType.TRANSFORMER if transformer else None,
            fast_bias_correction=fast,
            advanced_parameters=nncf.AdvancedQuantizationParameters(
                # ONNX Runtime's QLinearConv takes one range per input, but NNCF's default is one range per channel for
                # depthwise convolutions.
                activations_quantization_params=nncf.quantization.advanced_parameters.QuantizationParameters(
                    per_channel=False
                )
            ),
            # Pixels have 8 bits; resampling them for a member of an ensemble in 8 bits would take some away.
            ignored_scope=nncf.IgnoredScope(names=list(dict.fromkeys([*kept, *resampling(graph)]))),
        )


def int8_variants() -> list[str]:
    """Return the variants that run `model.int8.onnx` on this machine."""
    found = []
    for name in ("onnxruntime", "openvino"):
        with contextlib.suppress(HalftoneError):
            if runtime_class(name).supported("int8"):
                found.append(f"{name}-int8")
    return found


def _write(bundle: Bundle, quantised: onnx.ModelProto) -> None:
    describe(quantised, bundle, "int8")
    onnx.checker.check_model(quantised, full_check=True)
    command = f"`python -m export.onnx --model {bundle.name} --precision int8`"
    bundle.write(TARGET, quantised.SerializeToString(), made_by=command, made_from=[WEIGHTS, SOURCE])


def _at_limit(records: list[ParityRecord], *, trained: bool) -> list[str]:
    return [
        f"{record.variant}: {reason}"
        for record in records
        if record.verdict == "PASSED"
        for reason in Gate.for_precision("int8").at_limit(record.figures, trained=trained)
    ]


def _prove(bundle: Bundle, data: Path | None) -> list[ParityRecord]:
    console = Console(stderr=True)
    gates = {variant: Gate.for_precision("int8") for variant in int8_variants()}
    with Progress(console=console, transient=True, disable=not console.is_terminal) as progress:
        return prove(bundle, gates, data, progress)


def _describe(pictures: CalibrationPictures) -> str:
    with suppress_output():
        return f"{pictures.description}, by NNCF {_nncf().__version__}"


def _nncf() -> Any:
    try:
        import nncf
        import nncf.onnx
    except ModuleNotFoundError as error:
        raise HalftoneError(
            f"INT8 needs the package {error.name}, which is not installed: `pip install {error.name}`, or export with "
            "--precision fp32 or fp16"
        ) from None
    return nncf
