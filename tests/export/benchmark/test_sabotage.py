"""Every kind of damage that costs a point of the decided answers is refused, and no honest variant is."""

from pathlib import Path

import numpy as np
import onnx
import pytest

from export.benchmark.power import FIRST_UNSEEN, SOURCE, Examination, Row, crops
from export.benchmark.sabotage import GRAPHS, LOGITS, RESIZES
from export.onnx.fp16.ranges import infer
from export.parity.gate import Gate
from export.parity.images import CROPS_PER_PHOTO
from export.parity.metrics import compare
from export.runtime import Logits
from export.variants import load
from models.bundle.bundle import Bundle

UNSEEN = 6


Pair = tuple[Logits, Logits]


@pytest.fixture(scope="module")
def default(artifacts: Path) -> Bundle:
    """The default bundle as it is published: the strengths of the damages are measured on it."""
    return Bundle.open(artifacts / "efficientnet_lite0")


@pytest.fixture(scope="module")
def graph(default: Bundle) -> onnx.ModelProto:
    return onnx.load_from_string(default.read(SOURCE))


@pytest.fixture(scope="module")
def pixels(default: Bundle) -> Pair:
    """The crops of a proof, and some that no proof uses."""
    return crops(default, CROPS_PER_PHOTO, 1).pixels, crops(default, UNSEEN, FIRST_UNSEEN).pixels


def both(graph: onnx.ModelProto, pixels: Pair) -> Pair:
    (first,), (second,) = (infer(graph, each, ["logits"]) for each in pixels)
    return first, second


@pytest.fixture(scope="module")
def exam(default: Bundle, graph: onnx.ModelProto, pixels: Pair) -> Examination:
    return Examination(
        reference=both(graph, pixels),
        photographs=crops(default, CROPS_PER_PHOTO, 1).photographs,
        trained=True,
        temperature=default.manifest.temperature,
        resamples=0,
    )


@pytest.fixture(scope="module")
def honest(default: Bundle, pixels: Pair) -> Pair:
    runtime = load(default, "onnxruntime-fp16", threads=2)
    first, second = (np.concatenate([runtime.run(part) for part in np.split(each, len(each) // 16)]) for each in pixels)
    return first, second


def judged(row: Row) -> None:
    """Damage that costs a point is refused; what passes costs less."""
    assert row.verdict == "FAILED" or row.lost < 0.01, row


# One strength of each on a quarter of the crops: the table of `export.benchmark.power` has them all.
@pytest.mark.parametrize("kind", GRAPHS)
def test_damaged_weights(exam: Examination, graph: onnx.ModelProto, pixels: Pair, kind: str) -> None:
    (damage, strengths), few = GRAPHS[kind], 80

    (logits,) = infer(damage(graph, strengths[1]), pixels[0][:few], ["logits"])

    figures = compare(exam.reference[0][:few], logits, None)
    assert Gate.for_precision("fp16").reasons_to_fail(figures, trained=True, few=True)


@pytest.mark.parametrize("kind", RESIZES)
def test_another_resize(default: Bundle, exam: Examination, graph: onnx.ModelProto, kind: str) -> None:
    few = 80
    pixels = crops(default, few // 8, 1, RESIZES[kind]).pixels

    (logits,) = infer(graph, pixels, ["logits"])

    figures = compare(exam.reference[0][:few], logits, None)
    assert Gate.for_precision("fp16").reasons_to_fail(figures, trained=True, few=True)


@pytest.mark.parametrize(("kind", "strength"), [(kind, each) for kind, (_, every) in LOGITS.items() for each in every])
def test_damaged_outputs(exam: Examination, honest: Pair, kind: str, strength: float) -> None:
    damage, _ = LOGITS[kind]

    for precision in ("fp16", "bf16", "int8"):
        judged(exam.row(kind, strength, precision, (damage(honest[0], strength), damage(honest[1], strength))))


def test_classes_that_no_crop_shows(exam: Examination, honest: Pair) -> None:
    """Rows 150 to 249 of the classifier moved on by one, and two single classes exchanged."""
    for rows in (np.r_[150:250], np.array([151, 152])):
        moved = [each.copy() for each in honest]
        for each, logits in zip(moved, honest, strict=True):
            each[:, rows] = logits[:, np.roll(rows, 1)]

        row = exam.row("moved", 1, "int8", (moved[0], moved[1]))

        assert any(f"{len(rows)} classes are exchanged" in reason for reason in row.reasons), row


@pytest.mark.parametrize("lost", [0, 500, 999])
def test_one_class_that_is_never_answered(exam: Examination, honest: Pair, lost: int) -> None:
    dead = tuple(np.where(np.arange(1000) == lost, np.float32(-1), each) for each in honest)

    row = exam.row("dead", 1, "int8", (dead[0], dead[1]))

    assert any("correlation 0.0000" in reason for reason in row.reasons), row


def test_the_honest_variant_passes_in_every_resample_of_the_photographs(exam: Examination, honest: Pair) -> None:
    row = Examination(**{**vars(exam), "resamples": 5}).row("nothing", 0, "fp16", honest)

    assert (row.verdict, row.passes) == ("PASSED", 1.0)


def test_two_classes_that_are_exchanged() -> None:
    margin = np.random.default_rng(0).normal(size=320).astype(np.float32) * 3
    logits = np.stack([margin, -margin], axis=1)
    exam = Examination(
        reference=(logits, logits), photographs=np.arange(320) // 40, trained=True, temperature=1.0, resamples=0
    )

    row = exam.row("exchanged", 1, "int8", (logits[:, ::-1].copy(), logits[:, ::-1].copy()))

    assert any("2 classes are exchanged" in reason for reason in row.reasons)
