"""Parity proofs from the first image to the record, with graphs that are wrong in different ways."""

import json
import os
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import numpy as np
import numpy.typing as npt
import onnx
import pytest
from onnx import numpy_helper
from rich.progress import Progress

from export.parity.gate import Gate
from export.parity.images import sample_crops
from export.parity.metrics import compare
from export.parity.prove import provable_variants, prove
from export.parity.record import ParityRecord, UnprovenError, proof
from export.parity.reference import reference_logits
from export.runtime import Logits, Pixels
from export.runtimes.torch import Torch
from export.variants import load
from models.bundle.bundle import Bundle
from models.bundle.drift import read_profile
from models.bundle.errors import HashMismatchError
from models.common.errors import HalftoneError
from models.preprocess.transform import load as load_picture
from tests.commands import run
from tests.servers import PHOTOS

NAME = "efficientnet_lite0"
GRAPH = "model.fp32.onnx"
VARIANT = "onnxruntime-fp32"
Change = Callable[[npt.NDArray[np.float32]], npt.NDArray[np.float32]]


def change_graph(bundle: Bundle, shape: list[int], change: Change) -> None:
    """Replace the first tensor of that shape in the FP32 graph, and update the graph's hash."""
    graph = onnx.load_from_string(bundle.read(GRAPH))
    tensor = next(each for each in graph.graph.initializer if list(each.dims) == shape)
    tensor.CopyFrom(numpy_helper.from_array(change(numpy_helper.to_array(tensor)), tensor.name))
    old = bundle.manifest.files[GRAPH]
    bundle.write(GRAPH, graph.SerializeToString(), made_by=old.made_by, made_from=list(old.made_from))


def proved(bundle: Bundle, data: Path | None = None, gate: Gate | None = None) -> ParityRecord:
    with Progress(disable=True) as progress:
        (record,) = prove(bundle, {VARIANT: gate or Gate()}, data, progress)
    return record


def command(bundle: Bundle, *arguments: str, model: str = NAME) -> subprocess.CompletedProcess[str]:
    environment = os.environ | {"HALFTONE_ARTIFACTS": str(bundle.folder.parent)}
    return run("export.parity", "--model", model, *arguments, env=environment)


@pytest.fixture(scope="module")
def crops(default: Bundle) -> npt.NDArray[np.uint8]:
    """A fifth of the crops of a proof."""
    return np.stack([picture for picture, _ in sample_crops(default.manifest.input, per_photo=8)])


@pytest.fixture(scope="module")
def expected(default: Bundle, crops: npt.NDArray[np.uint8]) -> Logits:
    return load(default, "torch-fp32", threads=2).run(crops)


@pytest.fixture(scope="module")
def classes(default: Bundle) -> dict[Path, str]:
    """The class that the reference gives each sample photograph."""
    photos = sorted(PHOTOS.glob("*.jpg"))
    pixels = np.stack([load_picture(photo.read_bytes(), default.manifest.input) for photo in photos])
    answers = load(default, "torch-fp32", threads=2).run(pixels).argmax(axis=1)
    return {photo: default.manifest.label_ids[answer] for photo, answer in zip(photos, answers, strict=True)}


@pytest.fixture
def pictures(classes: dict[Path, str], tmp_path: Path) -> Path:
    """The sample photographs as labelled data on which the reference is always right."""
    for photo, label in classes.items():
        (tmp_path / "pictures" / label).mkdir(parents=True, exist_ok=True)
        shutil.copy(photo, tmp_path / "pictures" / label)
    return tmp_path / "pictures"


@pytest.mark.parametrize(
    ("shape", "change", "reason"),
    [
        # As with BGR instead of RGB.
        ([32, 3, 3, 3], lambda kernel: kernel[:, ::-1].copy(), "mean KL divergence"),
        # As with pixels that were divided by 255 twice.
        ([32, 3, 3, 3], lambda kernel: kernel * np.float32(0.25), "mean KL divergence"),
        ([1000], lambda bias: bias + np.float32(50) * (np.arange(1000) == 7).astype(np.float32), "top-1 agreement"),
        ([1000], lambda bias: bias * np.float32("nan"), "64 of 64 answers hold NaN or infinity"),
    ],
    ids=["channels swapped", "contrast lost", "one class takes all", "not a number"],
)
def test_a_wrong_graph_fails_the_gate(
    copied: Bundle, crops: npt.NDArray[np.uint8], expected: Logits, shape: list[int], change: Change, reason: str
) -> None:
    gate = Gate()
    right = load(copied, VARIANT, threads=2).run(crops)
    change_graph(copied, shape, change)

    wrong = load(copied, VARIANT, threads=2).run(crops)

    assert gate.reasons_to_fail(compare(expected, right, None), trained=True, few=True) == []
    assert any(reason in each for each in gate.reasons_to_fail(compare(expected, wrong, None), trained=True, few=True))


def test_a_graph_with_shifted_classes_exits_with_1_and_may_not_serve(copied: Bundle) -> None:
    change_graph(copied, [1000, 1280], lambda weights: np.roll(weights, 1, axis=0))

    result = command(copied, "--variant", VARIANT)

    record = json.loads((copied.folder / "parity" / f"{VARIANT}.json").read_text())
    assert result.returncode == 1, result.stderr
    assert f"FAILED {VARIANT}: " in result.stderr
    assert "top-1 agreement on decided pictures" in result.stderr
    assert record["verdict"] == "FAILED"
    assert record["figures"]["top1_agreement"]["value"] < 0.1
    changed = Bundle.open(copied.folder)
    with pytest.raises(UnprovenError, match="failed its parity gate"):
        proof(changed, VARIANT)
    # OpenVINO loads the same graph, but its record is for the graph before.
    with pytest.raises(UnprovenError, match=r"other files.*python -m export\.parity"):
        proof(changed, "openvino-fp32")


@pytest.mark.parametrize("variant", ["onnxruntime-fp32", "onnxruntime-fp16", "openvino-fp32", "torch-fp32"])
def test_a_batch_and_single_images_have_the_same_logits(default: Bundle, variant: str) -> None:
    runtime = load(default, variant, threads=2, streams=1)
    pixels = np.random.default_rng(0).integers(0, 256, (5, 96, 96, 3), dtype=np.uint8)

    together = runtime.run(pixels)

    assert (together.dtype, together.shape) == (np.float32, (5, 1000))
    np.testing.assert_allclose(np.concatenate([runtime.run(each[None]) for each in pixels]), together, atol=2e-2)


def test_labelled_pictures_with_their_accuracy(copied: Bundle, pictures: Path) -> None:
    record = proved(copied, pictures)

    accuracy = record.figures["accuracy"]
    assert (record.verdict, record.data["labelled"]) == ("PASSED", True)
    profile = read_profile(copied)
    assert profile is not None
    assert profile.pictures == 8
    assert (record.figures["images"], record.figures["pictures"], accuracy["images"]) == (8 * 32, 8, 8)
    assert accuracy["reference"]["value"] == accuracy["variant"]["value"] == accuracy["mcnemar_p"] == 1.0
    assert any("on 8 labelled pictures, too few to tell" in note for note in record.notes)


def test_the_model_card_says_what_was_compared_and_how_it_answered(copied: Bundle, pictures: Path) -> None:
    proved(copied, pictures, Gate(min_agreement=1.0, min_correlation=1.0))

    card = copied.read("README.md").decode()
    (line,) = [line for line in card.splitlines() if line.startswith(f"- `{VARIANT}`")]
    assert "**FAILED**" in line
    assert "accuracy 100.00% → 100.00% of 8; 256 images of 8 pictures (labelled pictures of the folder" in line


def test_the_reference_runs_once_for_the_same_images_and_weights(copied: Bundle, default: Bundle) -> None:
    class Counting(Torch):
        runs = 0

        def run(self, pixels: Pixels) -> Logits:
            self.runs += 1
            return super().run(pixels)

    reference, spec = Counting(copied, precision="fp32", threads=1), copied.manifest.input
    pixels = np.random.default_rng(7).integers(0, 256, (2, spec.size, spec.size, 3), np.uint8)

    first = reference_logits(copied, reference, pixels)
    again = reference_logits(copied, reference, pixels)
    assert (reference.runs, (first == again).all()) == (1, True)
    reference_logits(copied, reference, pixels[:1])
    assert reference.runs == 2
    copied.write("weights.safetensors", copied.read("weights.safetensors") + b" ", made_by="a test")
    reference_logits(copied, reference, pixels)
    assert reference.runs == 3


def test_folders_named_by_label_in_the_validation_split(copied: Bundle, tmp_path: Path) -> None:
    for label, photo in (("espresso", "coffee.jpg"), ("tiger cat", "cat.jpg"), ("missile", "rocket.jpg")):
        (tmp_path / "data" / "val" / label).mkdir(parents=True)
        shutil.copy(PHOTOS / photo, tmp_path / "data" / "val" / label)

    with pytest.raises(
        HalftoneError, match=r"data holds 3 pictures, and a proof takes at least 7: add more, or omit --d"
    ):
        proved(copied, tmp_path / "data")
    for number in range(4):
        shutil.copy(PHOTOS / "coffee.jpg", tmp_path / "data" / "val" / "espresso" / f"{number}.jpg")
    record = proved(copied, tmp_path / "data")

    accuracy = record.figures["accuracy"]
    assert (record.data["labelled"], record.figures["images"], accuracy["images"]) == (True, 7 * 37, 7)
    assert accuracy["reference"]["value"] >= 2 / 3
    assert (accuracy["difference"]["value"], accuracy["mcnemar_p"]) == (0.0, 1.0)


def test_the_command_line_overrides_the_gate_and_the_record_keeps_it(copied: Bundle, pictures: Path) -> None:
    change_graph(copied, [32, 3, 3, 3], lambda kernel: (1 - 0.1) * kernel + 0.1 * kernel[:, ::-1])
    arguments = ("--variant", VARIANT, "--data", str(pictures))

    strict = command(copied, *arguments, "--json")
    assert (strict.returncode, "Traceback" in strict.stderr) == (1, False), strict.stderr
    assert f"FAILED {VARIANT}: mean KL divergence" in strict.stderr
    assert json.loads(strict.stdout)[VARIANT]["verdict"] == "FAILED"

    changed = command(copied, *arguments, "--max-mean-kl", "1", "--min-agreement", "0.1", "--accuracy-margin", "0.3")
    record = json.loads((copied.folder / "parity" / f"{VARIANT}.json").read_text())
    assert "KL" not in changed.stderr
    assert "decided" not in changed.stderr
    gate = record["gate"]
    assert (gate["max_mean_kl"], gate["min_agreement"], gate["accuracy_margin"]) == (1.0, 0.1, 0.3)


@pytest.mark.parametrize("count", [7, 8])
def test_pictures_of_which_none_can_be_read(copied: Bundle, tmp_path: Path, count: int) -> None:
    (tmp_path / "data" / "tabby").mkdir(parents=True)
    for index in range(count):
        (tmp_path / "data" / "tabby" / f"{index}.jpg").write_bytes(b"junk")

    with pytest.raises(HalftoneError, match=r"2 of the pictures can't be read.*[0-7]\.jpg"):
        proved(copied, tmp_path / "data")


def test_nothing_is_proved_of_a_damaged_graph(copied: Bundle) -> None:
    before = copied.locate("parity/onnxruntime-fp32.json").read_bytes()
    with copied.locate(GRAPH).open("ab") as file:
        file.write(b"\0")

    with pytest.raises(HashMismatchError):
        proved(copied)

    assert copied.locate("parity/onnxruntime-fp32.json").read_bytes() == before


def test_a_graph_that_loads_and_cannot_run_is_one_line(copied: Bundle) -> None:
    graph = onnx.load_from_string(copied.read(GRAPH))
    (last,) = [node for node in graph.graph.node if node.output[0] == "logits"]
    last.output[0] = "three"
    graph.graph.initializer.append(numpy_helper.from_array(np.array([3, 1000]), "rows"))
    graph.graph.node.append(onnx.helper.make_node("Reshape", ["three", "rows"], ["logits"]))
    old = copied.manifest.files[GRAPH]
    copied.write(GRAPH, graph.SerializeToString(), made_by=old.made_by, made_from=list(old.made_from))

    result = command(copied, "--variant", VARIANT)

    assert result.returncode == 2
    assert "onnxruntime-fp32 loads, but can't run: " in result.stderr
    assert "Traceback" not in result.stderr


def test_what_can_be_proved_here(copied: Bundle) -> None:
    everything = provable_variants(copied)
    assert {"onnxruntime-fp32", "onnxruntime-fp16", "openvino-fp32"} <= set(everything)
    assert "torch-fp32" not in everything

    copied.write("weights.safetensors", b"newer", made_by="a test")
    assert provable_variants(copied) == []


def test_a_bundle_without_exports_has_nothing_to_prove(copied: Bundle) -> None:
    copied.write("weights.safetensors", b"newer", made_by="a test")

    result = command(copied)

    assert (result.returncode, result.stdout, result.stderr.count("\n")) == (2, "", 1)
    assert "has nothing to prove yet: export it with `python -m export --model efficientnet_lite0`" in result.stderr


@pytest.mark.parametrize(
    ("model", "arguments", "word"),
    [
        ("no_such_model", [], "python -m export"),
        (NAME, ["--variant", "onnxruntime-fp99"], "choose from"),
        (NAME, ["--variant", "abacus-fp32"], "not a variant"),
        (NAME, ["--data", "/no/such/folder"], "no such folder"),
        (NAME, ["--variant", VARIANT, "--min-agreement", "1.5"], "--min-agreement must lie in [0, 1]"),
        (NAME, ["--variant", VARIANT, "--min-images", "0"], "--min-images must be 1 or more"),
        (NAME, ["--variant", VARIANT, "--max-mean-kl", "-1"], "--max-mean-kl must be 0 or more"),
    ],
)
def test_wrong_requests_are_one_line_and_exit_code_2(
    default: Bundle, model: str, arguments: list[str], word: str
) -> None:
    result = command(default, *arguments, model=model)

    assert (result.returncode, result.stdout, result.stderr.count("\n")) == (2, "", 1), result.stderr
    assert word in result.stderr
    assert result.stderr.startswith("error: ")
