"""Graphs over the limit of an ONNX file are refused before tracing, with a message that says what to do."""

from pathlib import Path

import pytest
import torch

import export.onnx.tracing
from export.onnx.export import PROTOBUF_LIMIT, STRUCTURE, check_graph_size, export_onnx
from models.bundle.bundle import WEIGHTS, Bundle
from models.bundle.errors import FileMissingError
from models.catalog import architecture, catalogue
from models.checkpoint import build
from models.common.errors import HalftoneError
from tests.samples import manifest, small_bundle


def bundle_of(folder: Path, weights: int) -> Bundle:
    """A bundle whose manifest gives this size of the FP32 weights."""
    bundle = small_bundle(folder, name="huge")
    record = bundle.manifest.files[WEIGHTS]
    values = vars(record) | {"size": weights}
    bundle.manifest = bundle.manifest.with_file(WEIGHTS, type(record)(**values))
    return bundle


def test_a_graph_that_fits_only_in_half_precision(tmp_path: Path) -> None:
    bundle = bundle_of(tmp_path / "huge", 2_528_188_320)

    check_graph_size(bundle, "fp16")
    check_graph_size(bundle, "int8")
    with pytest.raises(
        HalftoneError,
        match=r"the FP32 graph of huge would hold 2\.6 GB, and an ONNX file holds at most 2\.1 GB: "
        r"run `python -m export\.onnx --model huge --precision fp16`",
    ):
        check_graph_size(bundle, "fp32")


def test_a_graph_that_fits_in_no_precision(tmp_path: Path) -> None:
    bundle = bundle_of(tmp_path / "huge", 3 * PROTOBUF_LIMIT)

    for precision in ("fp32", "fp16"):
        with pytest.raises(HalftoneError, match=r"take a smaller architecture \(`python -m models --sort params`"):
            check_graph_size(bundle, precision)


def test_nothing_is_traced_or_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    bundle = bundle_of(tmp_path / "huge", PROTOBUF_LIMIT)
    monkeypatch.setattr(export.onnx.tracing, "load_module", lambda _: pytest.fail("the weights were loaded"))

    with pytest.raises(HalftoneError, match="would hold"):
        export_onnx(bundle, "fp32")

    assert sorted(path.name for path in bundle.folder.iterdir()) == ["manifest.json", WEIGHTS]


def test_of_the_catalogue_only_the_huge_vit_is_too_large() -> None:
    """Parameters are counted on the meta device, on which weights take no memory."""
    large = [entry.name for entry in catalogue().values() if entry.parameters * 4 + STRUCTURE > PROTOBUF_LIMIT]
    with torch.device("meta"):
        module = build(architecture("vit_h14"), classes=1000)
    parameters = sum(parameter.numel() for parameter in module.parameters())

    assert large == ["vit_h14"]
    assert parameters * 4 > PROTOBUF_LIMIT > parameters * 2 + STRUCTURE


def test_a_bundle_without_weights(tmp_path: Path) -> None:
    with Bundle.creating(tmp_path / "empty", manifest()) as bundle:
        pass

    with pytest.raises(FileMissingError, match=r"no weights\.safetensors"):
        check_graph_size(bundle, "fp32")
